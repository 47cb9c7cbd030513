"""The store against bare psycopg: ``python -m benchmarks``."""
