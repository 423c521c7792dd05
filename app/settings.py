"""This service's settings: plinth's groups, and yours beside them.

A setting of your own is a field of a group: `shop: ShopSettings = Field(default_factory=ShopSettings)` in `Settings`
reads `SHOP_CURRENCY` into `settings.shop.currency`.
"""

from collections.abc import Iterator
from functools import lru_cache

from pydantic import Field

import plinth.settings


class AppSettings(plinth.settings.AppSettings):
    name: str = Field("Plinth", description="The service's name, in the API's title and in the logs.")
    version: str = Field("0.1.0", description="The service's version, in the API's documentation.")
    description: str = Field(
        "A production-ready FastAPI service.",
        description="What the service does, in the same place.",
    )
    example_data: bool = Field(False, description="Let `app seed` load example data. Refused in production.")
    public_url: str = Field(
        "http://localhost:8000", description="Where people reach the service's pages: links in mails begin with it."
    )
    reports_to: str = Field("reports@localhost", description="Address that reports are mailed to.")

    def production_faults(self) -> Iterator[str]:
        yield from super().production_faults()
        if self.example_data:
            yield "APP_EXAMPLE_DATA: must be off in production"


class Settings(plinth.settings.Settings):
    """Everything that can be configured. `get_settings()` reads it; tests build it directly."""

    app: AppSettings = Field(default_factory=AppSettings)


@lru_cache
def get_settings() -> Settings:
    """The settings of the process, for entry points only: everything else is passed what it needs."""
    settings = plinth.settings.load_settings(Settings)
    _ = settings.app.signing_key  # which tokens are signed with: without it no process starts
    return settings
