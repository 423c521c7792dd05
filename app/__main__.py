"""`python -m app` is the `app` command, where that is not installed."""

from app.cli import app

app(prog_name="app")
