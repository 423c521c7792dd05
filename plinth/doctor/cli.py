"""The command `app doctor`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from plinth.doctor.findings import as_json, as_text, has_error
from plinth.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def add_command(cli: typer.Typer, get_settings: Callable[[], Settings], has_jobs: bool) -> None:
    """Add `doctor` to the commands of a service. It needs no settings that can be used."""

    @cli.command()
    def doctor(
        json: Annotated[bool, typer.Option("--json", help="Print a JSON array for other programs.")] = False,
    ) -> None:
        """Find what keeps the service from starting or working, with what mends it. Exit code 1 if there is an error.

        Example: app doctor --json
        """
        from plinth.doctor.examination import examine

        findings = examine(get_settings, has_jobs, ROOT)
        print(as_json(findings) if json else as_text(findings))
        raise typer.Exit(has_error(findings))
