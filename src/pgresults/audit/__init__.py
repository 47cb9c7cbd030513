"""What was under a key, who made it so, and whether that can still be believed."""
