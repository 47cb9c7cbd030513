"""Real deaths of processes and servers."""
