"""The production image: its contents, and its behaviour as a process."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers.support import ROOT, attempt, container, docker

MOST_BYTES_OVER_THE_BASE = 135_000_000
SETTINGS = ["--env=APP_SECRET_KEY=" + "k" * 32, "--env=DATABASE_ALLOW_PLAINTEXT=true", "--env=HTTP_ALLOWED_HOSTS=*"]


def test_it_contains_what_serves_and_nothing_else(image: str) -> None:
    programs = "for name in gcc cc g++ make git pip; do command -v $name; done"
    folders = " -o ".join(f"-name {name}" for name in ("pip", "ensurepip", "fastapi_swagger", "pytest", "tests"))
    script = f"""
        id -u; {programs}; find / -xdev -type d \\( {folders} \\) 2>/dev/null
        find ~root/.cache /var/.cache /tmp -type f 2>/dev/null; python -m pip --version 2>&1
        command -v app; ls -d /srv/plinth/testing 2>/dev/null; ls -A -I __pycache__ /srv
    """
    code, found = container(image, "sh", "-c", script)
    installed = ["/opt/venv/bin/python: No module named pip", "/opt/venv/bin/app"]
    assert code == 0
    assert found.splitlines() == ["10001", *installed, "alembic.ini", "app", "gunicorn.conf.py", "migrations", "plinth"]


def test_it_is_small(image: str, record_property: Callable[[str, object], None]) -> None:
    base = re.findall(r"^ARG PYTHON_VERSION=(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[0]
    sizes = docker("image", "inspect", "--format={{.Size}}", image, f"python:{base}-slim").split()
    over = int(sizes[0]) - int(sizes[1])
    record_property("the image over its base", f"{over / 1e6:.0f} MB")
    assert over <= MOST_BYTES_OVER_THE_BASE


def test_everything_is_compiled(image: str) -> None:
    """Its root is read-only, so a file without bytecode would be compiled at every start."""
    look = (
        "from importlib.util import cache_from_source; from pathlib import Path; "
        "files = [path for folder in ('/srv', '/opt/venv/lib') for path in Path(folder).rglob('*.py')]; "
        "print([str(path) for path in files if 'templates' not in path.parts"
        "       and not Path(cache_from_source(path)).exists()])"
    )
    assert container(image, "python", "-c", look) == (0, "[]")


def test_it_is_labelled(image: str) -> None:
    found = json.loads(docker("image", "inspect", image))[0]["Config"]
    assert {name.rpartition(".")[2] for name in found["Labels"]} >= {
        "title",
        "licenses",
        "version",
        "revision",
        "source",
    }
    assert (found["User"], found["Entrypoint"], found["Cmd"]) == ("10001:10001", ["entrypoint.sh"], ["serve"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 1, "DATABASE_URL: is missing; set it to postgresql://"),
        ([*SETTINGS, "--env=DATABASE_URL=mysql://here"], 1, "DATABASE_URL: must start with postgresql://"),
    ],
)
def test_it_refuses_to_start_with_a_sentence(image: str, arguments: list[str], code: int, message: str) -> None:
    for command in ("serve", "migrate"):
        ended, output = container(*arguments, image, command)
        assert ended == code
        assert output.startswith(message)
        assert "Traceback" not in output


def test_an_unreadable_secret_is_named(image: str, tmp_path: Path) -> None:
    secret = tmp_path / "app_secret_key"
    secret.write_text("k" * 32)
    secret.chmod(0o400)
    code, output = container(f"--volume={secret}:/run/secrets/app_secret_key:ro", image)
    assert (code, output) == (1, "/run/secrets/app_secret_key: cannot be read by this user (Permission denied)")


def test_any_other_command_runs_as_it_is(image: str) -> None:
    assert container(image, "sh", "-c", 'echo "$0 $$"; exit 3') == (3, "sh 1")


def test_a_change_of_the_code_reinstalls_nothing(image: str, checkout: Path) -> None:
    (checkout / "app" / "changed.py").write_text(f"CHANGED = {time.time_ns()}\n")
    try:
        output = docker("build", "--progress=plain", "--tag=containers-test-changed", str(checkout))
    finally:
        (checkout / "app" / "changed.py").unlink()
    [step] = re.findall(r"^#(\d+) .*pip --disable-pip-version-check", output, re.MULTILINE)
    assert f"#{step} CACHED" in output


def test_the_docs_come_with_a_build_argument(checkout: Path) -> None:
    docker("build", "--quiet", "--build-arg=REQUIREMENTS=docs", "--tag=containers-test-docs", str(checkout))
    check = "import fastapi_swagger; from plinth.http import add_docs"
    assert container("containers-test-docs", "python", "-c", check) == (0, "")


def test_the_files_are_clean(linters: Path) -> None:
    dockerfiles = [str(path) for path in (ROOT / "Dockerfile", *ROOT.glob("docker/*/Dockerfile"))]
    assert attempt([str(linters / "hadolint"), *dockerfiles]) == (0, "")
    scripts = [str(path) for path in ROOT.glob("docker/**/*.sh")]
    assert attempt([str(linters / "shellcheck"), "--shell=sh", *scripts]) == (0, "")
    assert "# syntax" not in "".join(Path(path).read_text() for path in dockerfiles)


@pytest.mark.parametrize("production", [False, True])
def test_no_password_is_written_in_what_production_reads(production: bool) -> None:
    files = ["docker-compose.yml"] + ["docker-compose.production.yml"] * production
    code, output = attempt(["docker", "compose", *(f"--file={file}" for file in files), "--profile=*", "config"])
    assert code == 0
    assert not re.findall(r"(?i)(?:password|secret_key)(?:_file)?: (?!/run/secrets/)\S+|://[^/\s]*:[^/\s]*@", output)
