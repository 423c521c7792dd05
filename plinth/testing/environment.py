"""Isolates tests from the developer's settings: their variables are removed and their `.env` is not read."""

import os
from pathlib import Path

from pydantic import BaseModel
from pydantic_settings import BaseSettings

ROOT = Path(__file__).resolve().parents[2]


def variables(settings: type[BaseSettings]) -> dict[str, tuple[object, str]]:
    """Map each setting's variable to its default and its description."""
    found: dict[str, tuple[object, str]] = {}
    for name, field in settings.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            for inner, inner_field in group.model_fields.items():
                found[f"{name}_{inner}".upper()] = inner_field.default, inner_field.description or ""
        else:
            found[name.upper()] = field.default, field.description or ""
    return found


def forget_settings(settings: type[BaseSettings]) -> None:
    """Remove all settings but the addresses of the servers that the tests run on."""
    for name in variables(settings).keys() - {"DATABASE_URL", "REDIS_URL"}:
        os.environ.pop(name, None)
    settings.model_config["env_file"] = settings.model_config["secrets_dir"] = None


def child_environment(**changes: str) -> dict[str, str]:
    """Environment for a process of the app that starts in a folder without a `.env`."""
    return os.environ | {"PYTHONPATH": str(ROOT)} | changes
