"""Every query, and nothing but queries."""
