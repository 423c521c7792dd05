"""Everything is logged, and raised wherever a secret is used: no secret is in the log, a traceback or a repr."""

import io
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Request
from pydantic import SecretStr
from sqlalchemy import text

from plinth.cache import RedisSettings, open_redis
from plinth.database import DatabaseSettings, open_database
from plinth.errors import ConfigurationError, InvalidTokenError, UnavailableError
from plinth.resilience import OutgoingSettings, open_outgoing
from plinth.security import (
    AuthSettings,
    DiscoveredKeys,
    Principal,
    Tokens,
    new_secret,
    open_passwords,
    requires,
)
from plinth.settings import Settings
from plinth.telemetry import logging_config
from tests.plinth.http.apps import build, client
from tests.plinth.security.forging import NAME, PRIVATE, pem, with_pair

SECRET, PREVIOUS = "the-present-secret-of-the-service", "the-previous-secret-of-the-service"
PASSWORD, WRONG = "correct horse battery", "wrong horse battery"
DATABASE_PASSWORD, REDIS_PASSWORD = "password-of-the-database", "password-of-redis"
SECRETS = {SECRET, PREVIOUS, PASSWORD, WRONG, DATABASE_PASSWORD, REDIS_PASSWORD, pem(PRIVATE), pem(PRIVATE)[30:90]}
TABLE = "CREATE TEMPORARY TABLE leaky (email text UNIQUE, hash text NOT NULL CHECK (hash <> ''), n int)"


class Log:
    """What the process would write, at DEBUG, in both formats."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.secrets = {*SECRETS}

    def fails(self, error: BaseException) -> None:
        logging.getLogger("tests").error("It has failed: %s %r", error, error, exc_info=error)

    def is_clean(self) -> None:
        written = self.stream.getvalue()
        assert "a line of this test" in written
        for secret in self.secrets:
            assert secret not in written, f"{secret} is in the log"
            assert repr(secret)[1:-1] not in written


@pytest.fixture(params=["json", "text"])
def log(request: pytest.FixtureRequest) -> Iterator[Log]:
    log = Log()
    formatter: Any = {**logging_config("DEBUG", request.param)["formatters"]["stdout"]}
    handler = logging.StreamHandler(log.stream)
    handler.setFormatter(formatter.pop("()")(**formatter))
    loggers = [
        logging.getLogger(),
        *map(logging.getLogger, ["httpx", "httpcore", "sqlalchemy", "sqlalchemy.engine", "asyncio"]),
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    loggers[0].addHandler(handler)
    logging.getLogger("tests").debug("a line of this test")
    yield log
    loggers[0].removeHandler(handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


async def raises(log: Log, kind: type[BaseException], call: Callable[[], Awaitable[Any]]) -> None:
    with pytest.raises(kind) as raised:
        await call()
    log.fails(raised.value)


async def test_tokens(log: Log) -> None:
    async with open_outgoing(OutgoingSettings(retries=0)) as http:
        settings = AuthSettings(previous_key=PREVIOUS, trusted_issuer="http://localhost:9")
        tokens = Tokens(settings, SecretStr(SECRET), NAME, DiscoveredKeys("http://localhost:9", http))
        token = tokens.issue("7", "s1", [])
        claims = await tokens.verify(token)
        head, body, signature = token.split(".")
        log.secrets |= {token, signature}
        for attack in (token[:-2], f"{head}.{body}.", f"{body}.{head}.{signature}", token + "é", "x" * 9000 + token):
            await raises(log, InvalidTokenError, lambda attack=attack: tokens.verify(attack))  # type: ignore[misc]
        foreign = with_pair().token({"kid": "unknown", "typ": "JWT"})
        log.secrets.add(foreign)
        await raises(log, UnavailableError, lambda: tokens.verify(foreign))
        for value in (
            tokens,
            claims,
            settings,
            vars(tokens),
            tokens.jwks(),
            DiscoveredKeys("http://localhost:9", http),
        ):
            logging.getLogger("tests").info("%r %s", value, value)
    log.is_clean()


async def test_keys(log: Log) -> None:
    pair = AuthSettings(algorithm="EdDSA", private_key=pem(PRIVATE), previous_key=PREVIOUS)
    logging.getLogger("tests").info("%r %r", pair, vars(Tokens(pair, SecretStr(SECRET), NAME)))
    for settings, secret in (
        (AuthSettings(), SECRET[:20]),
        (AuthSettings(), pem(PRIVATE)),
        (AuthSettings(previous_key=PREVIOUS[:20]), SECRET),
        (AuthSettings(algorithm="EdDSA", private_key=SECRET), SECRET),
        (AuthSettings(algorithm="EdDSA", private_key=pem(PRIVATE)[:90]), SECRET),
    ):
        log.secrets |= {SECRET[:20], PREVIOUS[:20], pem(PRIVATE)[28:90]}
        with pytest.raises(ConfigurationError) as raised:
            Tokens(settings, SecretStr(secret), NAME)
        log.fails(raised.value)
    log.is_clean()


async def test_passwords(log: Log) -> None:
    async with open_passwords(1) as passwords:
        hash = await passwords.hash(PASSWORD)
        log.secrets |= {hash, hash.rpartition("$")[2]}
        for given in (PASSWORD, WRONG):
            for known in (hash, None, hash[:-5], "$argon2id$"):
                await passwords.verify(given, known)
        await raises(log, TypeError, lambda: passwords.verify(PASSWORD.encode(), hash))  # type: ignore[arg-type]
        logging.getLogger("tests").info("%r %r", passwords, vars(passwords))
    log.is_clean()


async def test_the_password_of_the_database(log: Log, settings: Settings) -> None:
    url = f"postgresql://app:{DATABASE_PASSWORD}@127.0.0.1:9/app"
    refused = DatabaseSettings(url=SecretStr(url), wait_seconds=0)
    logging.getLogger("tests").info("%r %s %s", refused, refused, refused.model_dump_json())
    async with open_database(refused, NAME) as database:
        logging.getLogger("tests").info("%r %r %r", database, vars(database), vars(database.reads))

        async def change() -> None:
            async with database.sessions.begin() as session:
                await session.execute(text("SELECT 1"))

        await raises(log, Exception, change)
    log.is_clean()


async def test_parameters_of_statements(log: Log, settings: Settings) -> None:
    """Errors of the database quote the statement, whose parameters may be anything."""
    secret, hash = new_secret("key_")
    log.secrets |= {secret, hash.hex(), str(hash)}
    async with open_database(settings.database, NAME) as database:
        for statement, values in (
            ("INSERT INTO leaky VALUES (:secret, :password, 1)", {"secret": secret, "password": PASSWORD}),
            (
                "INSERT INTO leaky VALUES (:secret, :password, :n)",
                {"secret": secret, "password": PASSWORD, "n": "text"},
            ),
            ("INSERT INTO leaky VALUES (:secret, '', 1)", {"secret": secret}),
            ("INSERT INTO leaky VALUES (:secret, NULL, 1)", {"secret": secret}),
            ("SELECT :secret FROM nothing", {"secret": secret}),
        ):

            async def change(statement: str = statement, values: Any = values) -> None:
                async with database.sessions.begin() as session:
                    await session.execute(text(TABLE))
                    await session.execute(text(statement), values)
                    raise ZeroDivisionError

            await raises(log, Exception, change)
    assert "ConstraintError: null value in column" in log.stream.getvalue()
    log.is_clean()


async def test_the_password_of_redis(log: Log) -> None:
    settings = RedisSettings(url=SecretStr(f"redis://user:{REDIS_PASSWORD}@127.0.0.1:9/0"))
    logging.getLogger("tests").info("%r %s %s", settings, settings, settings.model_dump_json())
    async with open_redis(settings) as redis:
        assert redis is not None
        logging.getLogger("tests").info("%s", redis)
        await raises(log, Exception, lambda: redis.get("a"))
    log.is_clean()


async def test_a_request_that_fails(log: Log) -> None:
    tokens = Tokens(AuthSettings(), SecretStr(SECRET), NAME)

    async def get_principal(request: Request) -> Principal:
        claims = await tokens.verify(request.headers["Authorization"].removeprefix("Bearer "))
        return Principal("user", claims.subject, claims.scopes, claims.session)

    app = build()

    @app.get("/fails")
    async def fails(principal: Annotated[Principal, requires(get_principal)]) -> None:
        raise RuntimeError(f"{principal!r} has failed")

    token = tokens.issue("7", "s1", [])
    log.secrets |= {token, token.rpartition(".")[2]}
    async with client(app) as to:
        for sent, status in ((token, 500), (token[:-3], 401)):
            answer = await to.get("/fails", headers={"Authorization": f"Bearer {sent}"})
            assert answer.status_code == status
            assert not any(secret in answer.text for secret in log.secrets)
    assert "has failed" in log.stream.getvalue()
    log.is_clean()


def test_settings(log: Log) -> None:
    settings = Settings(
        app={"secret_key": SECRET},
        auth={"algorithm": "EdDSA", "private_key": pem(PRIVATE), "previous_key": PREVIOUS},
        database={"url": f"postgresql://app:{DATABASE_PASSWORD}@localhost/app"},
        redis={"url": f"redis://user:{REDIS_PASSWORD}@localhost/0"},
    )
    logging.getLogger("tests").info(
        "%r %s %s %s", settings, settings, settings.model_dump(), settings.model_dump_json()
    )
    for wrong in ({"auth": {"algorithm": SECRET}}, {"auth": SECRET}, {"auth": {"private_key": [pem(PRIVATE)]}}):
        with pytest.raises(ValueError, match="auth") as raised:
            Settings(**wrong)
        log.fails(raised.value)
    log.is_clean()


def test_the_log_of_this_test_would_show_one(log: Log) -> None:
    logging.getLogger("tests").debug("%s", SECRET)
    with pytest.raises(AssertionError):
        log.is_clean()
