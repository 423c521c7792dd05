"""Settings of Redis and of the cache: `REDIS_URL` is `settings.redis.url`, and so on."""

import os
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

FORM = "must look like redis://:password@host:6379/0; rediss:// asks for TLS"
# Of redis-py's from_url: what does not change how this service uses its connections.
OPTIONS = {"db", "username", "password", "client_name", "ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
OPTIONS |= {"ssl_check_hostname", "ssl_ca_path", "ssl_password"}
CHOICES = {"ssl_cert_reqs": ("none", "optional", "required"), "ssl_check_hostname": ("true", "false", "True", "False")}
FILES = {"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"}


def _redis_url(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    try:
        parts = urlsplit(text)
        path, port, options = parts.path, parts.port, parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        raise ValueError(FORM) from None  # its message could quote the password
    database = path.strip("/") if parts.scheme != "unix" else ""
    if parts.scheme not in {"redis", "rediss", "unix"} or port == 0 or (parts.scheme == "unix" and not path):
        raise ValueError(FORM)
    if (database and not (database.isdecimal() and database.isascii())) or parts.fragment or not text.isprintable():
        raise ValueError(f"{FORM}, and other characters in the password must be percent-encoded")
    allowed = {name for name in OPTIONS if parts.scheme == "rediss" or not name.startswith("ssl")}
    for name, value in options:
        if name not in allowed or (name == "db" and not (value.isdecimal() and value.isascii())):
            raise ValueError(f"takes only these options after ?: {', '.join(sorted(allowed))}")
        if name in CHOICES and value not in CHOICES[name]:
            raise ValueError(f"`{name}` must be {' or '.join(CHOICES[name])}")
        if name in FILES and not os.access(value, os.R_OK):
            raise ValueError(f"`{name}` names a file that cannot be read")
    return url


RedisURL = Annotated[SecretStr, AfterValidator(_redis_url)]


class RedisSettings(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False, hide_input_in_errors=True)

    url: RedisURL | None = Field(None, description="Redis or Valkey; without it, nothing is cached by default.")
    timeout_seconds: float = Field(0.1, gt=0, le=86_400, description="Longest wait for one command or connection.")
    max_connections: int = Field(
        20, ge=2, le=10_000, description="Connections per worker, besides the two of the cache."
    )


class CacheSettings(BaseModel):
    responses: Literal["memory"] | bool = Field(
        True,
        description="Cache responses in Redis; `memory`: also without it, where one process alone uses the database.",
    )
    namespace: str = Field(
        "",  # plinth.settings derives it from the name of the service
        description="Prefix of all keys in Redis; services that share one need their own. Unset: APP_NAME.",
    )
    stale_seconds: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="While the database is away, a response is served for so long after it expired or was invalidated.",
    )
    memory_entries: int = Field(10_000, ge=1, description="Most entries kept in memory, per worker.")
    memory_megabytes: int = Field(32, ge=1, description="Most memory they take, per worker.")
