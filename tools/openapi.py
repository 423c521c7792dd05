"""`make openapi-check`: compares the API with openapi.json, and fails on what breaks its clients.

A change that only adds is recorded in openapi.json; one that breaks is named, and recorded only with ACCEPT=1, which is
`python -m tools.openapi --record`. The rules are in tools/api_changes.py.
"""

import json
import sys
from pathlib import Path
from typing import Any

from app.settings import Settings
from plinth.errors import ConfigurationError
from plinth.testing.environment import forget_settings
from tools.api_changes import breaking

RECORD = Path(__file__).resolve().parent.parent / "openapi.json"
ADVICE = """\
Keep what is there and add the new form beside it, or in a second version: docs/plinth/versioning.md shows how. If no
client depends on it, record the change: make openapi-check ACCEPT=1"""


def document() -> dict[str, Any]:
    """The API's document with every setting at its default, so that it is the same on every machine."""
    forget_settings(Settings)
    from app.main import create_app  # noqa: PLC0415 - it reads the settings
    from plinth.http.docs import openapi  # noqa: PLC0415

    found: dict[str, Any] = json.loads(json.dumps(openapi(create_app(Settings()))))
    return found


def main(arguments: list[str]) -> int:
    recorded = RECORD.exists() and arguments != ["--record"]
    try:
        old, new = json.loads(RECORD.read_text()) if recorded else {}, document()
    except (ConfigurationError, ValueError) as error:
        print(f"The API cannot be compared with {RECORD.name}: {error}", file=sys.stderr)
        return 1
    if found := [*breaking(old, new)]:
        print("The API would break its clients:", *(f"  {each}" for each in found), ADVICE, sep="\n", file=sys.stderr)
        return 1
    if old != new:
        RECORD.write_text(json.dumps(new, indent=2, ensure_ascii=False) + "\n")
    print(f"Recorded the API in {RECORD.name}; commit it." if old != new else f"The API is that of {RECORD.name}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
