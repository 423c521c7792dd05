"""`make bench` writes docs/benchmarks.md, and its figures to README's section "How fast"."""

from pathlib import Path

from benchmarks.figures import scenario_table, table
from benchmarks.readme import README, how_fast, section, update_readme
from benchmarks.report import PAGE as PAGE_FILE
from benchmarks.report import TEMPLATE
from benchmarks.scenarios import BY_ID, CREATE
from benchmarks.testbed import USUAL
from tests.benchmarks.test_figures import a_slice

PAGE = f"""# Benchmarks

### {BY_ID.name.capitalize()}

{scenario_table({"floor B": [a_slice(50)], "floor C": [a_slice(80)], "app": [a_slice(100)], USUAL: [a_slice(420)]})}

### {CREATE.name.capitalize()}

{scenario_table({"floor B": [a_slice(50)], "app": [a_slice(200)]})}

## Cached responses

{table(["", "× A", "× hit"], [["hit", "2.44", "1.00"], ["usual template, hit of a TTL cache", "9.00", "3.69"]])}

## HTTPBearer

{table(["", "× without"], [["behind HTTPBearer", "1.07"]])}
"""
EXPECTED = """
CPU per request with all middleware, as a ratio ([method](docs/benchmarks.md)). `HTTPBearer` makes it × 1.07.

|  | ping | product by id | search | list of 20 | create | update | cached hit |
| --- | --- | --- | --- | --- | --- | --- | --- |
| app ÷ bare FastAPI and asyncpg | – | 1.2 | – | – | – | – | – |
| app ÷ bare ASGI and asyncpg | – | 2.0 | – | – | 4.0 | – | 2.4 |
| usual FastAPI template ÷ app | – | 4.2 | – | – | – | – | 3.7 |

"""


def test_ratios_are_rounded_and_missing_ones_are_a_dash() -> None:
    assert how_fast(PAGE) == EXPECTED


def test_the_page_has_the_text_of_its_template() -> None:
    """An edit belongs in benchmarks/page.md: the next `make bench` overwrites the page."""
    fixed = {line for line in TEMPLATE.read_text().splitlines() if "{" not in line}
    assert fixed - set(PAGE_FILE.read_text().splitlines()) == set()


def test_readme_has_the_figures_of_the_page() -> None:
    assert section(README.read_text()) == how_fast(PAGE_FILE.read_text())


def test_only_that_section_is_rewritten(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Name\n\n## How fast\n\nold\n\n## Settings\n\nkept\n")
    update_readme(PAGE, readme)
    assert readme.read_text() == f"# Name\n\n## How fast\n{EXPECTED}## Settings\n\nkept\n"
    assert section(readme.read_text()) == EXPECTED
