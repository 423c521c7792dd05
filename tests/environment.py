"""The settings of whoever runs the tests stay out of them: their variables are not seen, their `.env` is not read."""

import os
from pathlib import Path

from pydantic import BaseModel

from app.config import Settings

ROOT = Path(__file__).resolve().parent.parent


def variables() -> dict[str, tuple[object, str]]:
    """Each setting's variable, with its default and description."""
    found: dict[str, tuple[object, str]] = {}
    for name, field in Settings.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            for inner, inner_field in group.model_fields.items():
                found[f"{name}_{inner}".upper()] = inner_field.default, inner_field.description or ""
        else:
            found[name.upper()] = field.default, field.description or ""
    return found


def forget_settings() -> None:
    """Leave the servers' addresses alone, which say where the tests run."""
    for name in variables().keys() - {"DATABASE_URL", "REDIS_URL"}:
        os.environ.pop(name, None)
    Settings.model_config["env_file"] = Settings.model_config["secrets_dir"] = None


def child_environment(**changes: str) -> dict[str, str]:
    """For a process of the app that starts in another folder, where no `.env` lies."""
    return os.environ | {"PYTHONPATH": str(ROOT)} | changes
