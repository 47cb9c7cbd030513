"""What objects are, in every process alike."""
