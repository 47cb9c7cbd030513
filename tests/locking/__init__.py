"""Locks: their contract, and every manager of them."""
