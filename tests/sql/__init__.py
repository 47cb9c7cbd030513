"""Statements, views, and the rights of roles."""
