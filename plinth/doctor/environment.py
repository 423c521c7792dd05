"""The Python that runs, and the packages that are installed for it.

tools/environment.py imports this module before anything is installed, so it needs only the standard library.
"""

import hashlib
import platform
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from plinth.doctor.findings import Finding

MAKE_ENVIRONMENT = "make environment"
LOCKS = "requirements/development.txt", "requirements/runtime.txt"
# A package of the lock file that every platform needs: a marker after it says otherwise.
LOCKED = re.compile(r"^([a-zA-Z0-9._-]+)==([^ \\;]+) *\\?$", re.MULTILINE)


def environment_stamp(root: Path) -> str:
    """What `make environment` writes to .venv/made-from: if it would write something else now, .venv is out of date.

    An environment cannot be moved, nor change its Python, because its scripts contain both paths.
    """
    sources = (root / LOCKS[0]).read_bytes() + (root / "pyproject.toml").read_bytes()
    return f"{platform.python_version()} {root.absolute() / '.venv'}\n{hashlib.sha256(sources).hexdigest()}"


def python(root: Path) -> Iterator[Finding]:
    running = f"Python {platform.python_version()}"
    project = root / "pyproject.toml"
    wanted = tomllib.loads(project.read_text())["project"]["requires-python"] if project.exists() else ""
    if (oldest := re.match(r">=\s*(\d+)\.(\d+)", wanted)) and sys.version_info[:2] < tuple(map(int, oldest.groups())):
        mend = "Install a newer Python, then `make environment PYTHON=/path/to/python`."
        yield Finding("python", "error", f"{running} runs, and pyproject.toml requires {wanted}.", mend)
    elif (root / ".venv").is_dir() and Path(sys.prefix).resolve() != (root / ".venv").resolve():
        sentence = f"{running} of {sys.prefix} runs, and not that of .venv."
        yield Finding("python", "warning", sentence, ".venv/bin/app doctor")
    else:
        yield Finding("python", "ok", f"{running} runs" + (f", and {wanted} is required." if wanted else "."))


def packages(root: Path) -> Iterator[Finding]:
    """Of `.venv` its stamp is compared, as `make environment` does; elsewhere the versions with the lock file."""
    if (root / ".venv").is_dir() and (root / LOCKS[0]).exists():
        stamp = root / ".venv/made-from"
        if stamp.exists() and stamp.read_text() == environment_stamp(root):
            yield Finding("packages", "ok", ".venv is as the lock file says.")
        else:
            sentence = ".venv is out of date: pyproject.toml, the lock file, the Python or the folder has changed."
            yield Finding("packages", "error", sentence, MAKE_ENVIRONMENT)
    elif (lock := root / LOCKS[1]).exists():
        if different := [*_different(lock.read_text())]:
            shown = ", ".join(different[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "")
            sentence = f"{len(different)} packages are not as {LOCKS[1]} says: {shown}."
            mend = f"python -m pip install --no-deps --require-hashes -r {LOCKS[1]}"
            yield Finding("packages", "error", sentence, mend)
        else:
            yield Finding("packages", "ok", f"The packages are as {LOCKS[1]} says.")
    else:
        yield Finding("packages", "ok", "There is no lock file here to compare the packages with, as in an image.")


def _different(lock: str) -> Iterator[str]:
    for name, locked in LOCKED.findall(lock):
        try:
            if (installed := version(name)) != locked:
                yield f"{name} {installed} in place of {locked}"
        except PackageNotFoundError:
            yield f"{name} is missing"
