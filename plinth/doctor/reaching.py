"""Why PostgreSQL refuses a connection, each cause told apart and with what mends it."""

import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import asyncpg

from plinth.database import DatabaseSettings
from plinth.database.connections import driver_arguments
from plinth.database.errors import DRIVER_ERRORS
from plinth.doctor.findings import Finding, one_line

OLDEST_VERSION = 16


@dataclass(frozen=True, slots=True)
class Place:
    """Where a connection goes, in the words of its variable."""

    variable: str
    hosts: str
    database: str
    user: str
    seconds: float
    is_default: bool


async def connect(variable: str, settings: DatabaseSettings) -> asyncpg.Connection | Finding:
    """A connection to the database of `settings.url`, or why there is none."""
    address = settings.address
    hosts = ", ".join(f"{host}:{port}" for host, port in zip(address.hosts, address.ports, strict=True))
    user = address.arguments.get("user", "")
    database = address.arguments.get("database", user)
    options = driver_arguments(settings, "doctor")
    place = Place(variable, hosts, database, user, options["timeout"], settings.is_local_default)
    try:
        return await asyncpg.connect(**options)
    except (*DRIVER_ERRORS, TypeError, ValueError) as error:
        sentence, mend = _refusal(error, place)
        return Finding("database", "error", sentence, mend)


def version(connection: asyncpg.Connection, variable: str) -> Finding:
    major = connection.get_server_version().major
    if major < OLDEST_VERSION:
        sentence = f"{variable}: PostgreSQL {major} is older than {OLDEST_VERSION}."
        mend = f"Upgrade it to {OLDEST_VERSION} or newer (pg_upgrade, or dump and restore)."
        return Finding("database", "error", sentence, mend)
    return Finding("database", "ok", f"{variable}: PostgreSQL {major} answers.")


def _refusal(error: Exception, place: Place) -> tuple[str, str]:
    sentence, mend = next(explain for kind, explain in CAUSES if kind(error))(error, place)
    return f"{place.variable}: {sentence}", mend


def _password(error: Exception, place: Place) -> tuple[str, str]:
    sentence = f"PostgreSQL at {place.hosts} refuses the password of {place.user!r}."
    return sentence, (
        f"Correct the password in {place.variable}. A Docker volume keeps the one that it was made with: set another "
        f"by `ALTER ROLE {place.user} PASSWORD '…'`, or delete the volume AND ALL ITS DATA by "
        "`docker compose down --volumes`."
    )


def _user(error: Exception, place: Place) -> tuple[str, str]:
    return (
        f"PostgreSQL at {place.hosts} does not admit the user {place.user!r} ({one_line(error)}).",
        f"Correct the user in {place.variable}, `CREATE ROLE` it, or add a line to pg_hba.conf.",
    )


def _database(error: Exception, place: Place) -> tuple[str, str]:
    host, _, port = place.hosts.partition(", ")[0].rpartition(":")
    return (
        f"PostgreSQL at {place.hosts} has no database {place.database!r}.",
        f"createdb --host={host} --port={port} --username={place.user} {place.database}",
    )


def _full(error: Exception, place: Place) -> tuple[str, str]:
    return (
        f"PostgreSQL at {place.hosts} has no connection left ({one_line(error)}).",
        "Stop what holds them (`SELECT * FROM pg_stat_activity`), lower DATABASE_POOL_SIZE, or raise max_connections.",
    )


def _starting(error: Exception, place: Place) -> tuple[str, str]:
    sentence = f"PostgreSQL at {place.hosts} starts or stops ({one_line(error)})."
    return sentence, "Wait until it accepts connections; its log says what it does."


def _encryption(error: Exception, place: Place) -> tuple[str, str]:
    return (
        f"there is no TLS with PostgreSQL at {place.hosts} ({one_line(error)}).",
        f"Check the certificates, and the host and the `sslmode` in {place.variable}; a server without TLS needs "
        "sslmode=disable.",
    )


def _name(error: Exception, place: Place) -> tuple[str, str]:
    return f"the host of {place.hosts} cannot be resolved ({one_line(error)}).", f"Check the host in {place.variable}."


def _silence(error: Exception, place: Place) -> tuple[str, str]:
    sentence = f"PostgreSQL at {place.hosts} does not answer within {place.seconds:g} s."
    return sentence, f"Check the host in {place.variable}, firewalls and security groups: packets are lost on the way."


def _refused(error: Exception, place: Place) -> tuple[str, str]:
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number).lower() if number else one_line(error)
    if place.is_default:
        return (
            f"no PostgreSQL runs at {place.hosts}, the default ({reason}).",
            "`make run` starts one for as long as it runs, and so does `docker compose up`; or set DATABASE_URL.",
        )
    return (
        f"no PostgreSQL accepts connections at {place.hosts} ({reason}).",
        f"Start it, or check the host and the port in {place.variable}.",
    )


def _other(error: Exception, place: Place) -> tuple[str, str]:
    return f"PostgreSQL at {place.hosts} refuses the connection ({one_line(error)}).", f"Check {place.variable}."


Explain = Callable[[Exception, Place], tuple[str, str]]
# The first that is true counts: some of these classes derive from others below them.
CAUSES: list[tuple[Callable[[Exception], bool], Explain]] = [
    (lambda error: isinstance(error, asyncpg.InvalidPasswordError), _password),
    (lambda error: isinstance(error, asyncpg.InvalidAuthorizationSpecificationError), _user),
    (lambda error: isinstance(error, asyncpg.InvalidCatalogNameError), _database),
    (lambda error: isinstance(error, asyncpg.TooManyConnectionsError), _full),
    (lambda error: isinstance(error, asyncpg.CannotConnectNowError), _starting),
    # The second is asyncpg's, of a server without TLS.
    (lambda error: isinstance(error, ssl.SSLError) or type(error) is ConnectionError, _encryption),
    (lambda error: isinstance(error, socket.gaierror), _name),
    (lambda error: isinstance(error, TimeoutError), _silence),
    (lambda error: isinstance(error, OSError), _refused),
    (lambda error: True, _other),
]
