"""The app without what it reports of requests: no log line, no metrics, no record of what each one does."""

from app.main import app
from plinth.http import MetricsMiddleware, RequestContextMiddleware

REPORTING: set[object] = {RequestContextMiddleware, MetricsMiddleware}

app.user_middleware[:] = [each for each in app.user_middleware if each.cls not in REPORTING]
