"""How Gunicorn's workers serve the app, and leave without a request failing."""
