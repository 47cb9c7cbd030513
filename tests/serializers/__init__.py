"""Objects to payloads and back."""
