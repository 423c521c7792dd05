"""Runs Alembic on a test database."""

from alembic import command
from alembic.config import Config

from plinth.testing.environment import ROOT


def migrate(url: str, revision: str = "head") -> None:
    """Upgrade the database at `url` (`postgresql://…`) to a revision."""
    command.upgrade(alembic_config(url), revision)


def alembic_config(url: str) -> Config:
    """The project's alembic.ini, with the address of another database."""
    config = Config(str(ROOT / "alembic.ini"))
    config.set_main_option("sqlalchemy.url", url.replace("postgresql://", "postgresql+asyncpg://").replace("%", "%%"))
    return config
