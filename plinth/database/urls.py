"""`DATABASE_URL` as hosting platforms write it: a parameter is used, translated, ignored by name or refused.

Messages never quote the URL, because a password with a character that is not percent-encoded may end up in any part of
it.
"""

import os
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from random import sample
from typing import Any
from urllib.parse import unquote, urlencode

from plinth.database.parameters import (
    ARGUMENTS,
    IGNORED,
    KNOWN,
    REFUSED,
    SERVER_SETTINGS,
    STATEMENT_CACHES,
    SWITCHES,
    SYNONYMS,
    TLS,
    TLS_MODES,
    UNSUPPORTED,
    check,
    system_context,
)

NOT_ENCODED = "has a character in the user or the password that must be percent-encoded, such as / or ?"
FORM = "must look like postgresql://user:password@host:5432/name"
URL = re.compile(r"([^:/?#]*)://([^/?]*)(?:/([^?]*))?(?:\?(.*))?", re.DOTALL)
HOST = re.compile(r"(\[[0-9A-Fa-f:.%a-z]+\]|[^:\[\]]*)(?::([0-9]*))?")
PARAMETER = re.compile(r"[a-z_A-Z]{1,40}")
DEFAULT_PORT = 5432


@dataclass
class Address:
    """Where a database is, and how to connect to it."""

    hosts: list[str]
    ports: list[int]
    arguments: dict[str, Any] = field(default_factory=dict, repr=False)
    server_settings: dict[str, str] = field(default_factory=dict)
    tls: dict[str, str] = field(default_factory=dict, repr=False)
    pooled: bool = False
    """Behind a pooler that gives each transaction another server."""
    ignored: dict[str, str] = field(default_factory=dict)
    """The parameters without effect, with the reason."""

    @property
    def is_plaintext(self) -> bool:
        """Whether traffic might not be encrypted on a network. libpq and asyncpg read PGSSLMODE, too."""
        mode = self.tls.get("sslmode") or os.environ.get("PGSSLMODE")
        return mode not in TLS_MODES and not all(host.startswith("/") for host in self.hosts)

    def connect_arguments(self) -> dict[str, Any]:
        """The address as arguments of `asyncpg.connect()`."""
        arguments = {**self.arguments, "host": self.hosts, "port": self.ports}
        tls = self.tls
        if tls.get("sslrootcert") == "system":
            arguments["ssl"], tls = system_context(tls), {key: tls[key] for key in tls.keys() & {"sslnegotiation"}}
        if tls:  # asyncpg takes these in a URL only
            arguments["dsn"] = f"postgresql://?{urlencode(tls)}"
        return arguments


def parse(url: str) -> Address:
    """Raises ValueError, whose text is a sentence that follows the name of the variable."""
    if not (parts := URL.fullmatch(url.strip())):
        raise ValueError(FORM)
    scheme, authority, database, query = parts.groups(default="")
    if scheme not in {"postgres", "postgresql", "postgresql+asyncpg"}:
        raise ValueError("must start with postgresql://; no other database is supported")
    credentials, _, places = authority.rpartition("@")
    if "@" in database:
        raise ValueError(NOT_ENCODED)
    user, _, password = credentials.partition(":")
    parameters = {"user": _decoded(user), "password": _decoded(password), "dbname": _decoded(database)}
    parameters |= _parameters(query)
    hosts, ports = _hosts(parameters, places)
    address = Address(hosts, ports)
    if database := parameters.pop("dbname", ""):
        address.arguments["database"] = database
    for name, value in parameters.items():
        if value:
            _apply(address, name, value)
    _check_tls(address)
    return address


def _parameters(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, equals, value = pair.partition("=")
        if name not in KNOWN and "@" in query:
            raise ValueError(NOT_ENCODED)
        if not PARAMETER.fullmatch(name) or not equals:
            raise ValueError("has a parameter after ? that is not name=value")
        if name not in KNOWN:
            near = get_close_matches(name, KNOWN - REFUSED.keys(), 1)
            raise ValueError(f"`{name}` is not a parameter of PostgreSQL" + (f"; is it `{near[0]}`?" if near else ""))
        value, kept = _decoded(value), SYNONYMS.get(name, name)
        found[kept] = SWITCHES.get(value, value) if name in {"ssl", "requiressl"} else value
        if value:
            check(kept, found[kept])
    return found


def _hosts(parameters: dict[str, str], places: str) -> tuple[list[str], list[int]]:
    """The hosts and as many ports. Parameters replace those before the `?`, as in libpq."""
    pairs = [_host_and_port(place) for place in places.split(",")]
    hosts, ports = [host for host, _ in pairs], [port for _, port in pairs]
    address, given, numbers = (parameters.pop(name, "") for name in ("hostaddr", "host", "port"))
    if address and (given or any(hosts)):
        raise ValueError("`hostaddr` beside a host is not supported; leave one of them out")
    if given or address:
        hosts = (given or address).split(",")
    if numbers:
        ports = numbers.split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise ValueError("must have one port, or one for each host")
    if any(port and not (port.isdecimal() and 0 < int(port[:6]) < 65536) for port in ports):
        raise ValueError("has a port that is not a number from 1 to 65535, or a password to percent-encode")
    if parameters.pop("load_balance_hosts", "") == "random":
        order = sample(range(len(hosts)), len(hosts))
        hosts, ports = [hosts[index] for index in order], [ports[index] for index in order]
    return [host or "localhost" for host in hosts], [int(port or DEFAULT_PORT) for port in ports]


def _host_and_port(place: str) -> tuple[str, str]:
    if not (parts := HOST.fullmatch(place)):
        raise ValueError("has a port that is not a number from 1 to 65535, or a password to percent-encode")
    host, port = parts.groups(default="")
    if host.startswith("["):
        host = host[1:-1]
    return _decoded(host), port


def _apply(address: Address, name: str, value: str) -> None:
    if name in TLS:
        address.tls[name] = value
    elif name in ARGUMENTS:
        address.arguments[name] = value
    elif name in SERVER_SETTINGS:
        address.server_settings[name] = value
    elif name in IGNORED:
        address.ignored[name] = IGNORED[name]
    elif name == "connect_timeout":
        if not re.fullmatch("-?[0-9]{1,5}", value):
            raise ValueError("`connect_timeout` must be a number of seconds")
        if int(value) > 0:  # otherwise libpq would wait without end
            address.arguments["timeout"] = float(value)
    elif (name, value) == ("channel_binding", "require"):
        address.ignored[name] = f"{UNSUPPORTED}; sslmode=verify-full protects as well"
    elif name == "pgbouncer" or name in STATEMENT_CACHES:
        address.pooled = address.pooled or value == ("true" if name == "pgbouncer" else "0")


def _check_tls(address: Address) -> None:
    tls = address.tls
    mode, root = tls.get("sslmode", ""), tls.get("sslrootcert", "")
    if mode == "verify-full" and not root and not _root_certificates().exists():
        root = tls["sslrootcert"] = "system"
    if root == "system":
        if mode not in {"", "verify-full"}:
            raise ValueError("`sslrootcert=system` needs sslmode=verify-full")
        tls["sslmode"] = "verify-full"
        if lost := tls.keys() & {"sslcrl", "ssl_min_protocol_version", "ssl_max_protocol_version"}:
            raise ValueError(f"`{min(lost)}` needs a file in sslrootcert")
        system_context(tls)
    elif mode == "verify-ca" and not root and not _root_certificates().exists():
        raise ValueError("`sslmode=verify-ca` needs sslrootcert; verify-full takes the system's certificates")
    if tls.get("sslnegotiation") == "direct" and tls.get("sslmode") not in TLS_MODES:
        raise ValueError("`sslnegotiation=direct` needs sslmode=require or stronger")


def _root_certificates() -> Path:
    """Where libpq and asyncpg look for them."""
    return Path(os.environ.get("PGSSLROOTCERT") or Path.home() / ".postgresql/root.crt")


def _decoded(text: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("has a percent-encoded part that is not UTF-8") from None
    if re.search(r"[\x00-\x1f\x7f]", decoded):
        raise ValueError("holds a control character")
    return decoded
