"""Settings: one validated group per capability, read once from the environment, `.env` and secret files.

`DATABASE_POOL_SIZE` is `settings.database.pool_size`. A secret may be a file in /run/secrets; a variable goes first.
"""

import re
import unicodedata
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar, cast, runtime_checkable

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as UnreadableSettingsError

from plinth.cache.settings import CacheSettings, RedisSettings
from plinth.database.settings import LOCAL_URL, DatabaseSettings
from plinth.errors import ConfigurationError
from plinth.http.settings import CorsSettings, HttpSettings
from plinth.jobs.mail_settings import MailSettings
from plinth.jobs.settings import JobSettings
from plinth.resilience.settings import OutgoingSettings
from plinth.security.settings import AuthSettings, LimitSettings
from plinth.serving.settings import ServerSettings, available_cores, listen_address
from plinth.storage.settings import StorageSettings
from plinth.telemetry.settings import LogSettings, MetricsSettings, ProfileSettings, SentrySettings, missing_extras
from plinth.variables import DotenvFile, Environment, SecretFiles, dotenv_encoding, sentences

__all__ = ["AppSettings", "Settings", "load_settings"]

DEVELOPMENT_SECRET_KEY = "development-only-secret-key-change-me"  # noqa: S105 - refused in production
NEW_KEY = "set it to the output of `openssl rand -hex 32`"


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


@runtime_checkable
class ProductionChecked(Protocol):
    """A group that has something to refuse in production."""

    def production_faults(self) -> Iterator[str]: ...


class AppSettings(BaseModel):
    name: str = Field("Service", description="The service's name, in the API's title and in the logs.")
    env: Annotated[Literal["development", "test", "production"], BeforeValidator(_lower)] = Field(
        "development", description="`production` refuses unsafe settings and hides the docs."
    )
    debug: bool = Field(False, description="Log at DEBUG, SQL statements included. Refused in production.")
    secret_key: SecretStr | None = Field(
        None, description="Signs what the service hands out; 32 bytes or more. Needed where `signing_key` is used."
    )

    @property
    def identifier(self) -> str:
        """The name as other programs take it: `billing_api` for "Billing API"."""
        latin = unicodedata.normalize("NFKD", self.name.casefold()).encode("ascii", "ignore").decode()
        return re.sub(r"[^a-z0-9]+", "_", latin).strip("_") or "service"

    @property
    def signing_key(self) -> SecretStr:
        """The secret key, for what signs with it: read it in `create_app`. Raises ConfigurationError in production."""
        if self.secret_key is None and self.env == "production":
            raise ConfigurationError(f"APP_SECRET_KEY: is missing; {NEW_KEY}")
        return self.secret_key or SecretStr(DEVELOPMENT_SECRET_KEY)

    def production_faults(self) -> Iterator[str]:
        """What must not be so in production, a sentence each that begins with the variable."""
        key = self.secret_key.get_secret_value() if self.secret_key else None
        if key == DEVELOPMENT_SECRET_KEY or (key and len(key.encode()) < 32):
            yield f"APP_SECRET_KEY: is under 32 bytes or the default; {NEW_KEY}"
        if self.debug:
            yield "APP_DEBUG: must be off in production"


class Settings(BaseSettings):
    """The groups of plinth. A service derives from it and adds its own (see app/settings.py)."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,
        secrets_dir="/run/secrets",
        extra="ignore",
        hide_input_in_errors=True,
    )

    host: Annotated[str, AfterValidator(listen_address)] = Field(
        "127.0.0.1", description="Address to listen on; 0.0.0.0 in a container."
    )
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    web_concurrency: int | None = Field(None, ge=1, le=1024, description="Worker processes. Unset: one for each core.")

    app: AppSettings = Field(default_factory=AppSettings)
    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    cache: CacheSettings = Field(default_factory=CacheSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    cors: CorsSettings = Field(default_factory=CorsSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    limit: LimitSettings = Field(default_factory=LimitSettings)
    mail: MailSettings = Field(default_factory=MailSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    outgoing: OutgoingSettings = Field(default_factory=OutgoingSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    profile: ProfileSettings = Field(default_factory=ProfileSettings)
    sentry: SentrySettings = Field(default_factory=SentrySettings)
    server: ServerSettings = Field(default_factory=ServerSettings)
    job: JobSettings = Field(default_factory=JobSettings)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        dotenv = cast(DotEnvSettingsSource, dotenv_settings)
        return (
            init_settings,
            Environment(settings_cls),
            DotenvFile(settings_cls, dotenv.env_file, dotenv.env_file_encoding),
            SecretFiles(file_secret_settings, secrets_dir_missing="ok"),
        )

    @property
    def production(self) -> bool:
        return self.app.env == "production"

    @property
    def workers(self) -> int:
        return self.web_concurrency or self.cores

    @property
    def cores(self) -> int:
        """What the process may use of the host."""
        return available_cores()

    @property
    def docs_enabled(self) -> bool:
        return not self.production if self.http.docs is None else self.http.docs

    @property
    def log_level(self) -> str:
        return "DEBUG" if self.app.debug else self.log.level

    @property
    def log_format(self) -> Literal["json", "text"]:
        return self.log.format or ("json" if self.production else "text")

    @model_validator(mode="after")
    def _refuse_what_cannot_work(self) -> Self:
        faults = [*self.production_faults()] if self.production else []
        faults += missing_extras(self.profile, self.sentry)
        if self.docs_enabled and find_spec("fastapi_swagger") is None:
            faults.append("HTTP_DOCS: /docs needs Swagger UI; install the `docs` extra, or set HTTP_DOCS=false")
        if faults:
            raise ValueError("\n".join(faults))
        return self

    @model_validator(mode="after")
    def _derive_what_is_unset(self) -> Self:
        if not self.database.url.get_secret_value():
            url = SecretStr(f"{LOCAL_URL}{self.app.identifier}")
            self.database = self.database.model_copy(update={"url": url})
        if self.database.explain_slow is None:
            self.database = self.database.model_copy(update={"explain_slow": self.app.env == "development"})
        if not self.cache.namespace:
            self.cache = self.cache.model_copy(update={"namespace": self.app.identifier})
        if self.mail.backend is None:
            self.mail = self.mail.model_copy(update={"backend": "smtp" if self.production else "file"})
        return self

    def production_faults(self) -> Iterator[str]:
        """What must not be so in production: the faults of every group that has any."""
        for name in type(self).model_fields:
            group = getattr(self, name)
            if isinstance(group, ProductionChecked):
                yield from group.production_faults()


SettingsT = TypeVar("SettingsT", bound=Settings)


def load_settings(settings: type[SettingsT]) -> SettingsT:
    """Read the environment. Raises ConfigurationError, which names every fault, one a line."""
    try:
        return settings(_env_file_encoding=dotenv_encoding(settings))
    except ValidationError as error:
        raise ConfigurationError("\n".join(sentences(settings, error))) from None  # it quotes values, secrets too
    except UnreadableSettingsError as error:
        raise ConfigurationError(str(error.__cause__ or error)) from None
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: cannot be read by this user ({error.strerror})") from error
