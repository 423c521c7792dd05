"""Where settings come from: the environment, `.env` and /run/secrets. What cannot be read is named by its variable.

pydantic-settings reads them. The classes here change what it makes of a variable that is named like a group, of a value
that is not JSON, and of files that are not UTF-8.
"""

import codecs
import os
import re
from collections.abc import Iterator
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any

from dotenv.parser import parse_stream
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, NestedSecretsSettingsSource

from plinth.errors import ConfigurationError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # begins like the mark of UTF-16
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NAME = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)")
# Variables of others that begin like ours: of HTTP clients, of Gunicorn, of docker-compose.yml, and the links to
# services that Kubernetes makes.
FOREIGN = {"HTTP_PROXY", "SERVER_SOFTWARE", "HTTP_PORT", "REDIS_PORT"}
SERVICE_LINK = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)")


def variables(settings: type[BaseSettings]) -> dict[str, tuple[object, str]]:
    """Map each setting's variable to its default and its description."""
    found: dict[str, tuple[object, str]] = {}
    for name, field in settings.model_fields.items():
        if group := group_of(field):
            for inner, inner_field in group.model_fields.items():
                found[f"{name}_{inner}".upper()] = inner_field.default, inner_field.description or ""
        else:
            found[name.upper()] = field.default, field.description or ""
    return found


def unknown_variables(settings: type[BaseSettings]) -> list[str]:
    """A sentence for each variable that begins like a group of settings, and is none."""
    known = variables(settings)
    groups = {name.upper() for name, field in settings.model_fields.items() if group_of(field)}
    sentences = []
    for name, value in sorted(given(settings).items()):
        # Kubernetes's DATABASE_PORT is tcp://…; that of a person is a mistake.
        linked = SERVICE_LINK.fullmatch(name) and not (name.endswith("_PORT") and value.isdecimal())
        foreign = name in FOREIGN or linked
        if name.partition("_")[0] in groups and "_" in name and name not in known and not foreign:
            [near] = get_close_matches(name, known, 1, cutoff=0.0)
            sentences.append(f"{name}: is not a setting; is it {near}?")
    return sentences


def group_of(field: FieldInfo) -> type[BaseModel] | None:
    group = field.annotation
    return group if isinstance(group, type) and issubclass(group, BaseModel) else None


def dotenv_encoding(settings: type[BaseSettings]) -> str:
    """Check `.env`, and return its encoding. Raises ConfigurationError with every fault, one a line."""
    file = settings.model_config.get("env_file")
    if not isinstance(file, str | os.PathLike) or not Path(file).is_file():
        return "utf-8"
    raw = Path(file).read_bytes()
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if raw.startswith(mark)), "utf-8-sig")
    if faults := [*_faults(raw, encoding, Path(file).name)]:
        raise ConfigurationError("\n".join(faults))
    return encoding


def _faults(raw: bytes, encoding: str, file: str) -> Iterator[str]:
    lines = raw.decode(encoding, "replace").split("\n")
    for number, line in enumerate(lines, 1):
        if "\ufffd" in line or "\0" in line:
            yield f"{_name(line, file)}: is not UTF-8 on line {number} of {file}; save the file as UTF-8"
            return
    for binding in parse_stream(StringIO("\n".join(lines))):
        if binding.error:
            name = _name(binding.original.string.lstrip(), file)
            yield f"{name}: cannot be read on line {binding.original.line} of {file}; write NAME=value"


def _name(line: str, file: str) -> str:
    line = line.replace("\0", "")  # of UTF-16 without a byte order mark
    name = NAME.match(line)
    return name[1].upper() if name and "=" in line else file


def given(settings: type[BaseSettings]) -> dict[str, str]:
    """All variables, the names in upper case. Raises ConfigurationError where `.env` cannot be read."""
    found: dict[str, str | None] = {}
    if directory := settings.model_config.get("secrets_dir"):
        found |= SecretFiles.load_secrets(Path(str(directory)))
    found |= _dotenv(settings).env_vars
    found |= os.environ
    return {name.upper(): value or "" for name, value in found.items()}


def dotenv_names(settings: type[BaseSettings]) -> set[str]:
    """The names in `.env`, in upper case. Raises ConfigurationError where it cannot be read."""
    return {name.upper() for name in _dotenv(settings).env_vars}


def _dotenv(settings: type[BaseSettings]) -> "DotenvFile":
    return DotenvFile(settings, env_file_encoding=dotenv_encoding(settings))


class Environment(EnvSettingsSource):
    def prepare_field_value(self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool) -> Any:
        """`APP` or `LOG` is another program's, and not a group of settings in JSON."""
        prepared = super().prepare_field_value(field_name, field, None if group_of(field) else value, value_is_complex)
        for name, each in prepared.items() if isinstance(prepared, dict) else ():
            if isinstance(each, str) and each.encode("utf-8", "replace").decode() != each:
                raise ValueError(f"{field_name.upper()}_{name.upper()}: is not UTF-8")
        return prepared

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError as error:
            names = (name for name, given in self.env_vars.items() if given == value and name.endswith(field_name))
            raise ValueError(f"{next(names, field_name).upper()}: must be JSON, such as [1, 2]") from error


class DotenvFile(Environment, DotEnvSettingsSource):
    pass


class SecretFiles(Environment, NestedSecretsSettingsSource):
    @classmethod
    def load_secrets(cls, path: Path) -> dict[str, str]:
        """A file that is not UTF-8 may be another program's. One of ours fails as the value of its variable."""
        entries = path.iterdir() if path.is_dir() else ()
        files = [file for file in entries if file.is_file() and not file.name.startswith(".")]
        return {file.name: file.read_bytes().decode(errors="surrogateescape").strip() for file in files}


def sentences(settings: type[BaseModel], error: ValidationError) -> list[str]:
    """Return one for each variable: a value of none of several types has a fault for each of them."""
    messages: dict[str, list[str]] = {}
    for fault in error.errors():
        name = "_".join(_fields(settings, fault["loc"])).upper()
        messages.setdefault(name, []).append(fault["msg"].removeprefix("Value error, "))
    return [f"{name}: {' or '.join(each)}" if name else " ".join(each) for name, each in messages.items()]


def _fields(model: Any, loc: tuple[int | str, ...]) -> Iterator[str]:
    """The names of settings at the start of a fault's location; what follows is inside of a value."""
    for part in loc:
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            return
        yield str(part)
        model = fields[part].annotation
