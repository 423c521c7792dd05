"""`make clean`: removes everything that `make` created. Needs only Python, because `.venv` may be broken."""

import os
import shutil
import signal
import sys
from pathlib import Path

from plinth.testing.locks import SetupError, acquire, held

LEFTOVERS = [".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".import_linter_cache", ".hypothesis", ".coverage"]


def main() -> int:
    root = Path.cwd()
    try:
        data = root / ".data"
        if data.exists():
            with held(data):
                for pid_file in data.glob("*.pid"):
                    os.close(acquire(pid_file, pid_file.stem, signal.SIGINT))
                shutil.rmtree(data)
        for name in LEFTOVERS:
            _remove(root / name)
        for cache in [*root.rglob("__pycache__")]:
            _remove(cache)
    except (SetupError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
