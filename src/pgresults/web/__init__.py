"""What is served over HTTP: the console, and figures for Prometheus."""
