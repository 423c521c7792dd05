"""Docker, used by its command line."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from app.settings import Settings
from plinth.testing.environment import variables

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "containers-test"
CONFINED = ["--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
PATIENCE_SECONDS = 60


def docker(*arguments: str) -> str:
    """Run docker and return its output. Raises AssertionError with the output if it fails."""
    code, output = attempt(["docker", *arguments])
    assert code == 0, f"docker {' '.join(arguments)}: {output}"
    return output


def attempt(argv: Sequence[str], cwd: Path = ROOT, environ: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a command. Returns its exit code and its output, errors included."""
    done = subprocess.run(
        argv,
        cwd=cwd,
        env=clean_environment() | dict(environ or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout.strip()


def clean_environment() -> dict[str, str]:
    """This environment without the settings of the app, which Compose would substitute into its files."""
    return {name: value for name, value in os.environ.items() if name not in variables(Settings)}


def container(*arguments: str) -> tuple[int, str]:
    """Run a container, confined as in production. Returns its exit code and output."""
    return attempt(["docker", "run", "--rm", *CONFINED, *arguments])


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


def eventually(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)


def copy_checkout(target: Path) -> Path:
    """Copy what the images are built from and what Compose reads."""
    for pattern in (*ROOT.glob("docker*"), *ROOT.glob("Dockerfile"), *ROOT.glob("*.*"), ROOT / ".dockerignore"):
        if pattern.is_file():
            shutil.copy(pattern, target)
    for folder in ("app", "docker", "migrations", "plinth", "requirements"):
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (target / ".env").unlink(missing_ok=True)
    return target


@dataclass
class Compose:
    """A Compose project. As a context manager it removes its containers and volumes at the end."""

    folder: Path
    name: str
    options: Sequence[str] = ()
    environ: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str) -> str:
        code, output = self.attempt(*arguments)
        assert code == 0, f"docker compose {' '.join(arguments)}: {output}\n{self.attempt('logs', '--tail=40')[1]}"
        return output

    def attempt(self, *arguments: str) -> tuple[int, str]:
        argv = ["docker", "compose", f"--project-name={self.name}", *self.options, *arguments]
        return attempt(argv, self.folder, self.environ)

    def __enter__(self) -> "Compose":
        return self

    def __exit__(self, *_: object) -> None:
        self("--profile=*", "down", "--volumes", "--remove-orphans", "--timeout=5")

    def id(self, service: str) -> str:
        return self("ps", "--quiet", "--all", service)

    def inside(self, service: str, *command: str) -> str:
        return self("exec", "--no-TTY", service, *command)
