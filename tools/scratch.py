"""Environments for programs that are no part of the project: under `.data/`, out of the way of its own."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from plinth.testing.locks import SetupError

SCRATCH = Path(__file__).resolve().parent.parent / ".data" / "scratch"


def scratch_environment(name: str, requirements: Sequence[str]) -> Path:
    """The folder of the programs of a virtual environment that holds these."""
    uv, folder = str(Path(sys.executable).with_name("uv")), SCRATCH / name
    run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)])
    run([uv, "pip", "install", "--quiet", "--system-certs", "--python", str(folder / "bin" / "python"), *requirements])
    return folder / "bin"


def run(argv: Sequence[str]) -> str:
    """What it printed. Raises SetupError where it fails or is not there."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except OSError as error:
        raise SetupError(f"{argv[0]} cannot be run ({error.strerror}).") from error
    except subprocess.CalledProcessError as error:
        raise SetupError(f"`{' '.join(argv)}` failed: {error.stderr or error.stdout}") from error
