"""What a worker, or a server that is to have one, refuses before it starts."""

from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from plinth.cli import create_cli
from plinth.jobs.status import StatusFiles
from plinth.settings import Settings, load_settings


def test_a_service_without_jobs_serves_without_a_worker() -> None:
    done = CliRunner().invoke(create_cli(Settings, "app.main:app"), ["serve", "--with-worker"])
    assert done.exit_code == 1
    assert done.output == "This service has no jobs, so there is no worker: leave out --with-worker.\n"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_status_folder_that_cannot_be_written_is_reported(tmp_path: Path, processes: str) -> None:
    (tmp_path / "file").touch()
    environment = {"JOB_STATUS_FOLDER": str(tmp_path / "file/status"), "JOB_PROCESSES": processes}
    cli = create_cli(partial(load_settings, Settings), "app.main:app", "app.main:create_worker")
    done = CliRunner().invoke(cli, ["worker"], env=environment)
    assert done.exit_code == 1
    assert done.output.startswith("JOB_STATUS_FOLDER cannot be written: [Errno 20] Not a directory")
    assert done.output.count("\n") == 1


def test_a_process_removes_the_files_of_one_that_was_killed(tmp_path: Path) -> None:
    for name in ("alive-0", "ready-0", "ready-1"):
        (tmp_path / name).touch()
    with StatusFiles(tmp_path, 0).ready():
        assert {file.name for file in tmp_path.iterdir()} == {"ready-0", "ready-1"}
    assert {file.name for file in tmp_path.iterdir()} == {"ready-1"}
