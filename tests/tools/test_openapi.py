"""`make openapi-check` records what was added to the API, and stops at what breaks its clients."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.support import ROOT, plain_environment
from tools import openapi


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(openapi, "RECORD", tmp_path / "openapi.json")
    return tmp_path / "openapi.json"


def test_what_was_added_is_recorded(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert openapi.main([]) == 0
    text = record.read_text()
    assert (text, json.loads(text)) == (openapi.RECORD.read_text(), openapi.document())
    assert openapi.main([]) == 0
    assert capsys.readouterr().out == "Recorded the API in openapi.json; commit it.\nThe API is that of openapi.json.\n"
    record.write_text(json.dumps(openapi.document() | {"paths": {}}))
    assert openapi.main([]) == 0
    assert record.read_text() == text


def test_what_breaks_clients_is_recorded_on_demand_only(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone: dict[str, object] = {"/gone": {"get": {}, "post": {}}}
    record.write_text(before := json.dumps(openapi.document() | {"paths": gone}))
    assert openapi.main([]) == 1
    assert record.read_text() == before
    printed = capsys.readouterr()
    lines = [
        "The API would break its clients:",
        "  GET /gone is gone",
        "  POST /gone is gone",
        *openapi.ADVICE.splitlines(),
    ]
    assert (printed.out, printed.err.splitlines()) == ("", lines)
    assert openapi.main(["--record"]) == 0
    assert json.loads(record.read_text()) == openapi.document()


def test_a_file_with_conflicts_is_left_alone(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record.write_text("<<<<<<< HEAD\n")
    assert openapi.main([]) == 1
    assert record.read_text() == "<<<<<<< HEAD\n"
    assert capsys.readouterr().err.startswith("The API cannot be compared with openapi.json: ")
    assert openapi.main(["--record"]) == 0


def test_the_settings_of_a_machine_change_nothing() -> None:
    """The file itself is compared: this one is current, and another title would be written."""
    before = (ROOT / "openapi.json").read_bytes()
    environment = os.environ | {
        "APP_NAME": "Other",
        "APP_ENV": "production",
        "HTTP_ROOT_PATH": "/other",
        "CORS_ORIGINS": "x",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tools.openapi"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "The API is that of openapi.json.\n", "")
    assert (ROOT / "openapi.json").read_bytes() == before


@pytest.mark.parametrize(("given", "passed_on"), [([], []), (["ACCEPT=1"], ["--record"])])
def test_make_passes_on_whether_to_accept_it(given: list[str], passed_on: list[str]) -> None:
    command = ["make", "--dry-run", "openapi-check", *given]
    shown = subprocess.check_output(command, cwd=ROOT, env=plain_environment(), text=True)
    assert shown.splitlines()[-1].split() == ["exec", ".venv/bin/python", "-m", "tools.openapi", *passed_on]
