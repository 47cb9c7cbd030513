"""This store beside what else would be used, each in turn with bare psycopg: ``python -m benchmarks.peers``."""
