"""`make init NAME="Billing API"`: turns the template into a project, or renames the project.

Sets the names (see tools/project.py), writes fresh secrets into `.env`, records the template's version for `make
update`, and removes what is the template's own: its benchmarks, its tests and its README. Either all files are changed
or none. Run again, it changes what the last run set. Needs nothing but the standard library, because it runs before
anything is installed.
"""

import argparse
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from plinth.testing.locks import SetupError
from tools.answers import COMMIT, SOURCE, read_answers, write_answers
from tools.project import PLACES, TEMPLATE_PATHS, TEMPLATE_TEXTS, Place, Project, current, missing, usual

ROOT = Path(__file__).resolve().parent.parent
README = Path(__file__).with_name("readme.md")
LABELS = {
    "name": "Name, as people read it",
    "description": "Description, in one sentence",
    "author": "Author",
    "holder": "Licence holder",
    "image": "Container image, without a tag",
}
SECRETS = {"APP_SECRET_KEY": 32, "POSTGRES_PASSWORD": 24}  # their bytes; the second is that of Compose's PostgreSQL


def main(arguments: Sequence[str], root: Path = ROOT, ask: Callable[[str], str] | None = None) -> int:
    """Returns the exit code. `ask` prompts for a value and returns the answer; None if there is no terminal."""
    options = _parse(arguments)
    try:
        before = current(root)
        after = choose(before, vars(options), ask)
        initialise(root, before, after, keep=options.keep)
        record(root, after, options.commit, options.source)
        written = write_secrets(root / ".env")
    except (SetupError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"This project is {after.name} now.", *(f"Wrote {name} into .env." for name in written), sep="\n")
    print("Next: `make check`, `make test`, look at `git diff`, and commit.")
    return 0


def choose(before: Project, given: dict[str, str | None], ask: Callable[[str], str] | None) -> Project:
    """What is given or answered; for the rest what was set, unless that follows from the name and the name changes."""
    if not given["name"] and ask is None:
        raise SetupError('Give the project a name: make init NAME="Billing API"')
    values: dict[str, str] = {}
    for field in vars(before):
        default = getattr(before, field)
        if values and default == usual(field, before.name, before.author):
            default = usual(field, values["name"], values.get("author", ""))
        values[field] = given[field] or (ask and ask(f"{LABELS[field]} [{default}]: ").strip()) or default
    return Project(**values)


def initialise(root: Path, before: Project, after: Project, keep: bool) -> None:
    """Write the project's values wherever the old ones stand. Raises SetupError before anything is changed."""
    is_template = bool(TEMPLATE_PATHS) and (root / TEMPLATE_PATHS[-1]).exists() and not keep
    texts: dict[str, str] = {}
    lost: list[Place] = []

    def replace(place: Place, old: str, new: str) -> None:
        text = texts.setdefault(place.file, (root / place.file).read_text())
        if text.count(old) == 1:
            texts[place.file] = text.replace(old, new)
        else:
            lost.append(Place(place.file, old))

    for place in PLACES:
        replace(place, before.fill(place.text), after.fill(place.text))
    for place, rest in TEMPLATE_TEXTS if is_template else ():
        replace(place, place.text, rest)
    if lost:
        raise missing(lost)
    if is_template:
        texts["README.md"] = after.fill(README.read_text())
        ownership = (root / "ownership.toml").read_text()
        texts["ownership.toml"] = ownership.partition("\n# The template's own")[0]
    for file, text in texts.items():
        (root / file).write_text(text)
    for path in TEMPLATE_PATHS if is_template else ():
        _remove(root / path)


def record(root: Path, project: Project, commit: str | None, source: str | None) -> None:
    """Write the names, and at first the version of the template, which a plain clone has from git, if there is one."""
    version = {name: value for name, value in read_answers(root).items() if name.startswith("_")}
    version = version or {
        COMMIT: commit or _git(root, "rev-parse", "--verify", "HEAD"),
        SOURCE: source or _git(root, "remote", "get-url", "origin"),
    }
    if version[COMMIT]:
        write_answers(root, version | vars(project))


def write_secrets(env: Path) -> list[str]:
    """Add the secrets that `.env` lacks, and return their names. One that has a value keeps it."""
    text = env.read_text() if env.exists() else ""
    written = [name for name in SECRETS if not re.search(rf"(?m)^\s*(?:export\s+)?{name}\s*=\s*\S", text)]
    if written:
        env.touch(mode=0o600)
        separator = "" if not text or text.endswith("\n") else "\n"
        lines = "".join(f"{name}={secrets.token_hex(SECRETS[name])}\n" for name in written)
        env.write_text(f"{text}{separator}{lines}")
    return written


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make init", description="Make the project yours.")
    for field, label in LABELS.items():
        flag = "--licence-holder" if field == "holder" else f"--{field}"
        parser.add_argument(flag, dest=field, metavar=field.upper(), help=label)
    parser.add_argument("--commit", help="the version of the template; without it, git's HEAD")
    parser.add_argument("--source", help="where the template is; without it, git's remote `origin`")
    parser.add_argument("--keep", action="store_true", help="keep the template's own README, benchmarks and tests")
    return parser.parse_args(arguments)


def _git(root: Path, *arguments: str) -> str:
    """What git prints; empty where `root` is no clone."""
    if not (root / ".git").exists():  # otherwise git goes on to the folders above
        return ""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], ask=input if sys.stdin.isatty() else None))
