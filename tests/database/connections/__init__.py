"""Connections: made lazily, per process and per event loop, replaced when lost, and never waited on for ever."""
