"""Settings of HTTP and CORS: `HTTP_MAX_BODY_BYTES` is `settings.http.max_body_bytes`, and so on."""

from collections.abc import Iterator

from pydantic import BaseModel, Field


class HttpSettings(BaseModel):
    docs: bool | None = Field(None, description="Serve /docs and /openapi.json. Unset: everywhere but in production.")
    max_body_bytes: int = Field(262_144, ge=1, description="Larger request bodies get 413.")
    gzip_level: int = Field(4, ge=0, le=9, description="Compression level of responses; 0 switches gzip off.")
    gzip_minimum_bytes: int = Field(1000, ge=0, description="Smaller responses are not compressed.")
    redirect_https: bool = Field(False, description="Redirect HTTP to HTTPS and send HSTS; behind a TLS proxy.")
    require_if_match: bool = Field(False, description="Answer 428 to a change without If-Match.")
    trusted_proxies: str = Field("127.0.0.1", description="Addresses whose X-Forwarded-* headers are trusted.")


class CorsSettings(BaseModel):
    origins: str = Field("", description="Origins that browsers may call from, comma-separated; `*` allows all.")
    credentials: bool = Field(False, description="Allow browsers to send cookies.")

    @property
    def allowed(self) -> list[str]:
        return [origin.strip() for origin in self.origins.split(",") if origin.strip()]

    def production_faults(self) -> Iterator[str]:
        """Yield a sentence for each setting that is not allowed in production; it begins with the variable's name."""
        if "*" in self.allowed and self.credentials:
            yield "CORS_ORIGINS: `*` cannot be combined with CORS_CREDENTIALS; name the origins"
