"""What every store does."""
