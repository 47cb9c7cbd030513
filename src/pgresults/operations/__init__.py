"""What happens in the database, written once as generators that yield requests."""
