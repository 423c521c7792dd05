"""How Gunicorn's workers serve the app, and leave without a request failing."""

from plinth.serving.fleet import fleet, handle_sigterm
from plinth.serving.settings import ServerSettings, available_cores

__all__ = ["ServerSettings", "available_cores", "fleet", "handle_sigterm"]
