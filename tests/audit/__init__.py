"""The history: what it says, that it is proved, and what is taken away."""
