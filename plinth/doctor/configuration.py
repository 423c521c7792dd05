"""The settings. Where they are wrong, all faults are reported, and the rest is read for the other checks."""

import fcntl
import os
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings.exceptions import SettingsError

from plinth.doctor.findings import Finding, Level
from plinth.errors import ConfigurationError
from plinth.settings import DEVELOPMENT_SECRET_KEY, Settings
from plinth.variables import dotenv_encoding, dotenv_names, given, group_of, sentences, unknown_variables, variables

# What the service refuses in production, or lacks a package for, keeps no other check from being made.
LENIENT: dict[str, Any] = {"app": {"env": "development"}, "http": {"docs": False}}
NEW_KEY = "Set it to the output of `openssl rand -hex 32`."
SHORTEST_TOKEN = 16
WELL_KNOWN = {"admin", "changeme", "database", "password", "postgres", "redis", "root", "secret", "service", "test"}
DEVELOPMENT_PASSWORD = "development"  # noqa: S105 - of docker-compose.override.yml


@dataclass
class Configuration:
    """What could be read."""

    settings: Settings | None
    """None where nothing could."""
    findings: list[Finding]
    wrong: frozenset[str] = frozenset()
    """The fields of `settings` that hold a default in place of what is wrong, so that nothing depends on them."""
    names: frozenset[str] = frozenset()
    """The variables that `findings` name."""


def adopt_servers(kind: type[Settings], root: Path) -> None:
    """Use the servers that `make run` runs in this checkout, whose addresses the environment of a shell lacks."""
    with suppress(ConfigurationError):  # which `read` reports
        already = given(kind)
        addresses = dotenv_values(root / ".data/servers.env") if _is_locked(root / ".data/lock") else {}
        os.environ.update({name: value for name, value in addresses.items() if value and not already.get(name)})


def _is_locked(file: Path) -> bool:
    """Whether `make run` runs: if it was killed, the addresses of its servers are still there."""
    with suppress(OSError), file.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def read(get_settings: Callable[[], Settings], kind: type[Settings]) -> Configuration:
    """`kind` is the class that `get_settings` returns."""
    try:
        settings = get_settings()
    except ConfigurationError as error:
        faults = str(error).splitlines()
    else:
        sentence = f"The settings can be used; APP_ENV={settings.app.env}."
        return Configuration(settings, [Finding("settings", "ok", sentence)])
    rest, wrong, more = _read_the_rest(kind)
    faults = [*dict.fromkeys([*faults, *more])]
    names = frozenset(fault.partition(":")[0] for fault in faults)
    if rest is not None and "DATABASE_URL" in names and rest.database.is_local_default:
        wrong.add("database")  # it is missing
    mend = "Correct it in the environment, in .env or in /run/secrets; .env.example explains each setting."
    findings = [Finding("settings", "error", f"{fault.rstrip('.')}.", mend) for fault in faults]
    return Configuration(rest, findings, frozenset(wrong), names)


def _read_the_rest(kind: type[Settings]) -> tuple[Settings | None, set[str], list[str]]:
    """The settings with a default in place of each that is wrong, the fields that hold one, and further faults."""
    defaults: dict[str, Any] = {}
    wrong: set[str] = set()
    more: list[str] = []
    try:
        encoding, production = dotenv_encoding(kind), given(kind).get("APP_ENV", "").lower() == "production"
        try:
            settings = kind(_env_file_encoding=encoding, **LENIENT)
        except ValidationError as error:
            names = {sentence.partition(":")[0] for sentence in sentences(kind, error)}
            wrong = {*_set_defaults(kind, names, defaults)}
            lenient = {name: {**fields, **defaults.get(name, {})} for name, fields in LENIENT.items()}
            settings = kind(_env_file_encoding=encoding, **defaults | lenient)
            # pydantic validates the whole, where production refuses something, only once each value is right.
            more = _faults_of(kind, encoding, defaults)
    except (ConfigurationError, ValidationError, SettingsError, OSError):
        return None, wrong, more
    if production:
        settings.app = settings.app.model_copy(update={"env": "production"})
    return settings, wrong, more


def _faults_of(kind: type[Settings], encoding: str, values: dict[str, Any]) -> list[str]:
    try:
        kind(_env_file_encoding=encoding, **values)
    except ValidationError as error:
        return [line for sentence in sentences(kind, error) for line in sentence.splitlines()]
    return []


def _set_defaults(kind: type[BaseModel], names: set[str], values: dict[str, Any]) -> Iterator[str]:
    """Replace what is wrong by its default. Yields the fields of the settings that are, or have, one of these."""
    for name, field in kind.model_fields.items():
        if group := group_of(field):
            for inner, inner_field in group.model_fields.items():
                if f"{name}_{inner}".upper() in names:
                    values.setdefault(name, {})[inner] = inner_field.get_default(call_default_factory=True)
                    yield name
        elif name.upper() in names:
            values[name] = field.get_default(call_default_factory=True)
            yield name


def unknown(kind: type[Settings]) -> Iterator[Finding]:
    """Variables that begin like a group of settings, and names in .env that look like one."""
    try:
        found = unknown_variables(kind)
    except ConfigurationError:
        return  # `read` reports that .env cannot be read
    known = variables(kind)
    named = {sentence.partition(":")[0] for sentence in found}
    for name in sorted(dotenv_names(kind) - known.keys() - named):
        if near := get_close_matches(name, known, 1, cutoff=0.85):
            found.append(f"{name}: is not a setting; is it {near[0]}?")
    mend = "Correct the name, or remove the variable: it has no effect."
    yield from (Finding("variables", "warning", sentence, mend) for sentence in found)
    if not found:
        yield Finding("variables", "ok", "All variables named like settings are settings.")


def secrets(settings: Settings, reported: Set[str]) -> Iterator[Finding]:
    """Those that anyone would guess. In development, the defaults of development are meant."""
    level: Level = "error" if settings.production else "warning"
    faults = [*_weak_keys(settings, reported), *_weak_passwords(settings)]
    yield from (Finding("secrets", level, sentence, mend) for sentence, mend in faults)
    if not faults:
        yield Finding("secrets", "ok", "No secret is weak" + (" or a default." if settings.production else "."))


def _weak_keys(settings: Settings, reported: Set[str]) -> Iterator[tuple[str, str]]:
    keys: dict[str, tuple[SecretStr | None, int]] = {
        "APP_SECRET_KEY": (settings.app.secret_key, 32),
        "DATABASE_CURSOR_KEY": (settings.database.cursor_key, 32),
        "METRICS_TOKEN": (settings.metrics.token, SHORTEST_TOKEN),
        "PROFILE_TOKEN": (settings.profile.token, SHORTEST_TOKEN),
    }
    if settings.auth.algorithm == "HS256":  # otherwise the previous key is a pair in PEM
        keys["AUTH_PREVIOUS_KEY"] = settings.auth.previous_key, 32
    for name, (secret, shortest) in keys.items():
        key = secret.get_secret_value() if secret else ""
        if not key or name in reported or (key == DEVELOPMENT_SECRET_KEY and not settings.production):
            continue
        if key == DEVELOPMENT_SECRET_KEY:
            yield f"{name} is the default of development, which everyone can read.", NEW_KEY
        elif len(key.encode()) < shortest:
            yield f"{name} is shorter than {shortest} bytes.", NEW_KEY
        elif len({*key}) < 8:
            yield f"{name} consists of fewer than 8 different characters.", NEW_KEY


def _weak_passwords(settings: Settings) -> Iterator[tuple[str, str]]:
    used = [
        (name, address.arguments.get("user"), address.arguments.get("password"))
        for name, address in settings.database.addresses()
    ]
    if settings.redis.url:
        parts = urlsplit(settings.redis.url.get_secret_value())
        used.append(("REDIS_URL", unquote(parts.username or ""), unquote(parts.password or "")))
    guessed = WELL_KNOWN | ({DEVELOPMENT_PASSWORD} if settings.production else set())
    for name, user, password in used:
        if password and password.lower() in guessed | {(user or "").lower()}:
            mend = "Give the user another one (in PostgreSQL `ALTER ROLE … PASSWORD`), and write it into the URL."
            yield f"{name} has a password that anyone would guess.", mend
