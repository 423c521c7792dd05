"""Isolates tests from the developer's settings: their variables are removed and their `.env` is not read."""

import os
from pathlib import Path

from pydantic_settings import BaseSettings

from plinth.variables import variables

__all__ = ["ROOT", "child_environment", "forget_settings", "variables"]

ROOT = Path(__file__).resolve().parents[2]


def forget_settings(settings: type[BaseSettings]) -> None:
    """Remove all settings but the addresses of the servers that the tests run on."""
    for name in variables(settings).keys() - {"DATABASE_URL", "REDIS_URL"}:
        os.environ.pop(name, None)
    settings.model_config["env_file"] = settings.model_config["secrets_dir"] = None


def child_environment(**changes: str) -> dict[str, str]:
    """Environment for a process of the app that starts in a folder without a `.env`."""
    return os.environ | {"PYTHONPATH": str(ROOT)} | changes
