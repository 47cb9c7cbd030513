"""What users are told: documents, examples, public names and types."""
