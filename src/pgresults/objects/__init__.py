"""What objects are, in every process alike: whose functions and classes, and the digests of values."""
