"""Records, their metadata, and their signatures."""
