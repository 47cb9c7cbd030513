"""Results with their metadata, keys, provenance and signatures."""
