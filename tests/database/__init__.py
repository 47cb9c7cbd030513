"""The schema, connections, and what is sent over them."""
