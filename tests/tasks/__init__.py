"""Tasks and flows."""
