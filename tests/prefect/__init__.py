"""The integration of Prefect."""
