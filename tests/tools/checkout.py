"""A small project that can be installed without a network."""

import hashlib
import inspect
import os
import shutil
import zipfile
from pathlib import Path

from tests.tools.support import ROOT, outcome

PYPROJECT = """
[project]
name = "demo"
version = "1.0"
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""


def make_wheel(directory: Path, name: str, version: str, files: dict[str, str]) -> Path:
    information = f"{name}-{version}.dist-info"
    path = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in files.items():
            entry = zipfile.ZipInfo(file)
            entry.external_attr = 0o100755 << 16  # a file that may be run
            wheel.writestr(entry, content)
        wheel.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{information}/RECORD", "".join(f"{file},,\n" for file in files))
    return path


BACKEND = f"""
import zipfile
from pathlib import Path

{inspect.getsource(make_wheel)}

def build_editable(directory, config_settings=None, metadata_directory=None):
    return make_wheel(Path(directory), "demo", "1.0", {{"demo.pth": str(Path.cwd())}}).name
"""


class Checkout:
    """A small project with this Makefile and tools, a local package index, and a PATH with only a few programs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "checkout"
        self.index = directory / "index"
        self.programs = directory / "programs"
        for folder in (self.directory / "requirements", self.index, self.programs):
            folder.mkdir(parents=True)
        shutil.copy(ROOT / "Makefile", self.directory)
        for shipped in ("tools", "plinth/doctor", "plinth/testing"):
            shutil.copytree(ROOT / shipped, self.directory / shipped, ignore=shutil.ignore_patterns("__pycache__"))
        (self.directory / "pyproject.toml").write_text(PYPROJECT)
        (self.directory / "backend.py").write_text(BACKEND)
        (self.directory / "demo.py").touch()
        self.lock("1.0")
        for name in ("make", "sh"):
            self.program(name, shutil.which(name) or "")

    def program(self, name: str, path: str) -> None:
        (self.programs / name).symlink_to(path)

    def script(self, name: str, text: str) -> None:
        file = self.programs / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def lock(self, version: str, more: str = "") -> None:
        wheel = make_wheel(self.index, "greeting", version, {"greeting.py": f"version = '{version}'"})
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        lock = self.directory / "requirements" / "development.txt"
        lock.write_text(f"{more}greeting=={version} \\\n    --hash=sha256:{digest}\n")

    def environment(self, **more: str) -> dict[str, str]:
        offline = {
            "NO_INDEX": "1",
            "OFFLINE": "1",
            "FIND_LINKS": str(self.index),
            "CACHE_DIR": str(self.directory.parent / "cache"),
        }
        tools = {f"{tool}_{name}": value for tool in ("PIP", "UV") for name, value in offline.items()}
        return {
            "PATH": str(self.programs),
            "HOME": str(self.directory.parent),
            "PIP_CONFIG_FILE": os.devnull,
            **tools,
            **more,
        }

    def make(self, *arguments: str, **env: str) -> tuple[int, str, str]:
        return outcome(["make", *arguments], self.directory, self.environment(**env))

    def installed(self) -> str:
        """The version of `greeting` that is installed."""
        argv = [".venv/bin/python", "-c", "import demo, greeting; print(greeting.version)"]
        return outcome(argv, self.directory, {})[1].strip()
