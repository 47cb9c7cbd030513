"""Transactions of one result and of trees."""
