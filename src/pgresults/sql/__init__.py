"""What is said to Postgres: tables, statements by topic, digests, guards, roles."""
