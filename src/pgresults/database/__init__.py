"""How statements reach Postgres: connections, pools, retries, and the programs that wait for them."""
