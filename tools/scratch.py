"""Virtual environments under `.data/` for programs that are not part of the project."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from plinth.testing.locks import SetupError

SCRATCH = Path(__file__).resolve().parent.parent / ".data" / "scratch"


def scratch_environment(name: str, requirements: Sequence[str]) -> Path:
    """Create a virtual environment with these requirements and return its folder of programs."""
    uv, folder = str(Path(sys.executable).with_name("uv")), SCRATCH / name
    run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)])
    run([uv, "pip", "install", "--quiet", "--system-certs", "--python", str(folder / "bin" / "python"), *requirements])
    return folder / "bin"


def run(argv: Sequence[str]) -> str:
    """Run a program and return its output. Raises SetupError if it fails or does not exist."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except OSError as error:
        raise SetupError(f"{argv[0]} cannot be run ({error.strerror}).") from error
    except subprocess.CalledProcessError as error:
        raise SetupError(f"`{' '.join(argv)}` failed: {error.stderr or error.stdout}") from error
