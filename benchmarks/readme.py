"""Keeps README's section "How fast" equal to the figures of docs/benchmarks.md."""

import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks import bearer, caching
from benchmarks.scenarios import SCENARIOS
from benchmarks.servers import ROOT
from benchmarks.testbed import USUAL

README = ROOT / "README.md"
HEADING = "## How fast\n"
CACHED = "cached hit"
MISSING = "–"
"""Shown for what is not measured."""

FASTAPI = "app ÷ bare FastAPI and asyncpg"
ASGI = "app ÷ bare ASGI and asyncpg"
TEMPLATE = "usual FastAPI template ÷ app"

TEXT = """
CPU per request with all middleware, as a ratio ([method](docs/benchmarks.md)). `HTTPBearer` makes it × {bearer}.

{table}

"""


def update_readme(page: str, readme: Path = README) -> None:
    """Write the figures of the page to README."""
    text = readme.read_text()
    readme.write_text(text.replace(section(text), how_fast(page)))


def section(readme: str) -> str:
    """The present text of the section, without its heading."""
    return readme.partition(HEADING)[2].partition("## ")[0]


def how_fast(page: str) -> str:
    """The text of the section for the figures of a page."""
    hits = _rows(page, "Cached responses")
    rows = {
        FASTAPI: [*(_figure(_rows(page, each.name), "app", "× C") for each in SCENARIOS), MISSING],
        ASGI: [
            *(_figure(_rows(page, each.name), "app", "× B", "× A") for each in SCENARIOS),
            _figure(hits, caching.HIT.name, "× A"),
        ],
        TEMPLATE: [
            *(_figure(_rows(page, each.name), USUAL, "× app") for each in SCENARIOS),
            _figure(hits, caching.USUAL_HIT.name, "× hit"),
        ],
    }
    head = ["", *(each.name for each in SCENARIOS), CACHED]
    lines = [head, ["---"] * len(head), *([name, *cells] for name, cells in rows.items())]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    behind = _figure(_rows(page, "HTTPBearer"), bearer.BEHIND, "× without", digits=2)
    return TEXT.format(table=table, bearer=behind)


def _rows(page: str, heading: str) -> dict[str, dict[str, str]]:
    """The cells of the first table below a heading, by the name of the row and of the column."""
    found = re.search(rf"(?ims)^###? {re.escape(heading)}$(.*?)(?=^#|\Z)", page)
    cells = list(_cells(found[1])) if found else []
    return {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[2:]}


def _cells(text: str) -> Iterator[list[str]]:
    for line in re.findall(r"(?m)^\|.*\|$", text):
        yield [cell.strip() for cell in line.strip("|").split("|")]


def _figure(rows: dict[str, dict[str, str]], row: str, *columns: str, digits: int = 1) -> str:
    """The first of these columns that has a figure, rounded."""
    figures = filter(None, (rows.get(row, {}).get(column) for column in columns))
    return next((f"{float(figure):.{digits}f}" for figure in figures), MISSING)
