"""Measures the service's CPU time per request relative to floors: minimal servers that read the same tables."""
