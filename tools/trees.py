"""Files as `make update` compares them: their bytes and kind by path, of a project and of versions of the template."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from plinth.testing.locks import SetupError

SHORTCUTS = {"gh:": "https://github.com/", "gl:": "https://gitlab.com/"}  # Copier's
NOT_RENDERED = {".git", ".env", ".copier-answers.yml"}


class File(NamedTuple):
    data: bytes
    kind: str = "file"  # or "executable", "link", "obstacle"


Tree = Mapping[str, File]


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder and return its output. Raises SetupError with git's own words."""
    # In a hook, git's variables name the repository that the hook belongs to.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True
        )
    except OSError as error:
        raise SetupError(f"git cannot be run in {folder} ({error.strerror}).") from error
    except subprocess.CalledProcessError as error:
        raise SetupError(f"`git {' '.join(arguments)}` failed: {error.stderr.strip()}") from error
    return done.stdout.strip()


class Template:
    """A clone of the template, which can give any version's files with a project's names in them."""

    def __init__(self, source: str, folder: Path) -> None:
        self.source, self.clone, self._folder = source, folder / "template", folder
        address = re.sub("^g[hl]:", lambda found: SHORTCUTS[found[0]], source)
        git(Path.cwd(), "clone", "--quiet", "--no-checkout", "--", address, str(self.clone))

    def commit(self, version: str, releases: Mapping[str, str]) -> str:
        """The commit of a release, commit, tag or branch. Raises SetupError if the template has none of that name."""
        for name in (releases.get(version, version), f"origin/{version}"):
            with suppress(SetupError):
                return git(self.clone, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        raise SetupError(f"{self.source} has no version {version!r}: give another one, or another SOURCE=.")

    def text(self, commit: str, path: str) -> str:
        """A file as it is in a commit; empty if there is none."""
        with suppress(SetupError):
            return git(self.clone, "show", f"{commit}:{path}")
        return ""

    def is_older(self, commit: str, than: str) -> bool:
        return git(self.clone, "merge-base", commit, than) == commit

    def render(self, commit: str, names: Mapping[str, str]) -> Tree:
        """What `make init` of that version gives. Its code runs for this, as it does in a project."""
        folder = self._folder / commit
        git(self.clone, "worktree", "add", "--quiet", "--detach", str(folder), commit)
        options = [f"--{'licence-holder' if name == 'holder' else name}={value}" for name, value in names.items()]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PYTHON"))}
        done = subprocess.run(
            [sys.executable, "-B", "-m", "tools.init", *options],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SetupError(f"Version {commit[:7]} could not be rendered: {done.stderr.strip()}")
        return read(folder, _files(folder))


@contextmanager
def template(source: str) -> Iterator[Template]:
    with tempfile.TemporaryDirectory(prefix="update-") as folder:
        yield Template(source, Path(folder))


def read(root: Path, paths: Iterable[str]) -> dict[str, File]:
    """Those of the paths at which there is something."""
    return {path: file for path in paths if (file := _read(root, path))}


def write(root: Path, changes: Mapping[str, File | None]) -> None:
    """Write the files, and delete those that are None. After an error, all are as they were before."""
    before = read(root, changes)
    done: list[str] = []
    try:
        for path, file in changes.items():
            done.append(path)
            _write(root, path, file)
    except OSError as error:
        for path in done:
            with suppress(OSError):
                _write(root, path, before.get(path))
        raise SetupError(f"{error.filename} could not be written ({error.strerror}); nothing was changed.") from error


def _files(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in NOT_RENDERED and (path.is_symlink() or not path.is_dir()):
            yield name


def _read(root: Path, name: str) -> File | None:
    path = root / name
    parents = [root.joinpath(*path.relative_to(root).parts[:depth]) for depth in range(1, name.count("/") + 1)]
    # Nothing is written through a link that stands for a folder: it may lead out of the project.
    if any(parent.is_symlink() or parent.is_file() for parent in parents) or (path.is_dir() and not path.is_symlink()):
        return File(b"", "obstacle")
    if path.is_symlink():
        return File(os.fsencode(path.readlink()), "link")
    if not path.exists():
        return None
    return File(path.read_bytes(), "executable" if path.stat().st_mode & stat.S_IXUSR else "file")


def _write(root: Path, name: str, file: File | None) -> None:
    path = root / name
    if file is None:
        path.unlink(missing_ok=True)
        for parent in path.relative_to(root).parents[:-1]:
            left = {each.name for each in (root / parent).iterdir()} if (root / parent).is_dir() else {"gone"}
            if left - {"__pycache__"}:
                break
            shutil.rmtree(root / parent)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    if file.kind == "link":
        new.symlink_to(os.fsdecode(file.data))
    else:
        new.write_bytes(file.data)
        if file.kind == "executable":
            new.chmod(new.stat().st_mode | 0o111)
    new.replace(path)
