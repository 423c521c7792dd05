"""Settings of HTTP and CORS: `HTTP_MAX_BODY_BYTES` is `settings.http.max_body_bytes`, and so on."""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from plinth.http.forwarded import parse_trusted
from plinth.http.target import host_name


class HttpSettings(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)

    docs: bool | None = Field(None, description="Serve /docs and /openapi.json. Unset: everywhere but in production.")
    max_body_bytes: int = Field(262_144, ge=1, description="Larger request bodies get 413.")
    gzip_level: int = Field(4, ge=0, le=9, description="Compression level of responses; 0 switches gzip off.")
    gzip_minimum_bytes: int = Field(1000, ge=0, description="Smaller responses are not compressed.")
    redirect_https: bool = Field(False, description="Redirect HTTP to HTTPS and send HSTS; behind a TLS proxy.")
    deadline_seconds: float = Field(
        30.0, ge=0, le=86_400, description="Time in which a response must have started; then 504. 0 is no deadline."
    )
    deadline_max_seconds: float = Field(
        60.0, gt=0, le=86_400, description="Longest time that a client may set for a request by X-Request-Timeout."
    )
    require_if_match: bool = Field(False, description="Answer 428 to a change without If-Match.")
    trusted_proxies: str = Field(
        "127.0.0.1", description="Networks whose X-Forwarded-* headers are trusted, or the number of proxies in front."
    )
    allowed_hosts: str = Field(
        "", description="Host names that clients use, comma-separated; `*.example.com` and `*` are possible."
    )
    root_path: str = Field("", description="Path prefix under which a proxy serves the API, such as /shop.")

    @property
    def hosts(self) -> list[str]:
        """The allowed hosts; all if none is named, which production refuses."""
        return [host.strip() for host in self.allowed_hosts.split(",") if host.strip()] or ["*"]

    @field_validator("trusted_proxies")
    @classmethod
    def _parse_trusted_proxies(cls, value: str) -> str:
        parse_trusted(value)
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _check_allowed_hosts(cls, value: str) -> str:
        for host in filter(None, map(str.strip, value.split(","))):
            name = host.removeprefix("*.")
            known = name.isascii() and host_name(name.encode()) == name.lower()
            if host != "*" and not (known and re.fullmatch(r"[\w\[](.*[\w\]])?\.?", name) and ".." not in name):
                raise ValueError(f"{host!r} is not the name of a host; write it without scheme, port and path")
        return value

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, value: str) -> str:
        if value and not re.fullmatch(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+", value):  # clients resolve dot segments
            raise ValueError("must begin with a slash and not end with one, such as /shop")
        return value

    def production_faults(self) -> Iterator[str]:
        """Yield a sentence for each setting that is not allowed in production; it begins with the variable's name."""
        if not self.allowed_hosts.strip(" ,"):
            yield "HTTP_ALLOWED_HOSTS: is missing; name the hosts that clients use, or `*` where the proxy checks them"


# As browsers send it (https://html.spec.whatwg.org/#ascii-serialisation-of-an-origin).
ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)(?::([1-9][0-9]{0,4}))?")
DEFAULT_PORTS = {("http", "80"), ("https", "443")}


def _origins(value: str) -> str:
    """Refuse an origin that is never equal to one that a browser sends."""
    for origin in filter(None, (each.strip() for each in value.split(","))):
        if origin not in {"*", "null"} and not _is_origin(origin):
            shown = f"`{origin}`" if "@" not in origin and origin.isprintable() else "one"
            raise ValueError(
                f"{shown} is not as browsers send origins: write https://shop.example.com, in lower case and without a "
                "path and the default port"
            )
    return value


def _is_origin(origin: str) -> bool:
    if not (parts := ORIGIN.fullmatch(origin)):
        return False
    scheme, host, port = parts.groups(default="")
    if host.startswith("[") or host.rpartition(".")[2].isdecimal():
        try:
            if str(ip_address(host.strip("[]"))) != host.strip("[]"):
                return False
        except ValueError:
            return False
    return (scheme, port) not in DEFAULT_PORTS and int(port or 1) < 65536


class CorsSettings(BaseModel):
    origins: Annotated[str, AfterValidator(_origins)] = Field(
        "", description="Origins that browsers may call from, comma-separated; `*` allows all."
    )
    credentials: bool = Field(False, description="Allow browsers to send cookies.")

    @property
    def allowed(self) -> list[str]:
        return [origin.strip() for origin in self.origins.split(",") if origin.strip()]

    def production_faults(self) -> Iterator[str]:
        """Yield a sentence for each setting that is not allowed in production; it begins with the variable's name."""
        if "*" in self.allowed and self.credentials:
            yield "CORS_ORIGINS: `*` cannot be combined with CORS_CREDENTIALS; name the origins"
