"""Storages: payloads, what is remembered of them, and which storages there are."""
