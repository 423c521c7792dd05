"""`python -m app` is the `app` command, where that is not installed."""

from app.cli import app

if __name__ == "__main__":  # processes for CPU-bound work import this module too
    app(prog_name="app")
