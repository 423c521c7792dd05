"""What someone developing the service runs, and production never imports."""
