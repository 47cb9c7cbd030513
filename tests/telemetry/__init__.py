"""What programs with OpenTelemetry see of pgresults, and what Prometheus sees of a schema."""
