"""`python -m app` is the `app` command, where that is not installed."""

import sys

try:
    from app.cli import app
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] in {"", "app", "plinth"}:
        raise
    sys.exit(f"{sys.executable} has no `{error.name}`: run `.venv/bin/app`, which `make environment` creates.")

if __name__ == "__main__":  # processes for CPU-bound work import this module too
    app(prog_name="app")
