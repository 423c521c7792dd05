"""docs/plinth/logs.md is true: its configurations can be read, its fields and headers are those of the code."""

import re

import yaml

from plinth.http import RequestContextMiddleware
from plinth.testing.environment import ROOT
from tests.plinth.http.apps import answering, fields, http_scope, messages, recorded

PAGE = (ROOT / "docs/plinth/logs.md").read_text()


def test_its_yaml_can_be_read_and_is_connected() -> None:
    [block] = re.findall(r"```yaml\n(.+?)```", PAGE, re.DOTALL)
    config = yaml.safe_load(block)
    assert config["transforms"]["service"]["inputs"] == [*config["sources"]]
    assert config["sinks"]["elastic"]["inputs"] == [*config["transforms"]]


def test_its_alloy_configuration_names_what_it_has() -> None:
    [block] = re.findall(r"```alloy\n(.+?)```", PAGE, re.DOTALL)
    components = {f"{kind}.{name}" for kind, name in re.findall(r'^([\w.]+) "(\w+)" {$', block, re.MULTILINE)}
    used = re.findall(r"(\w+(?:\.\w+)+)\.(?:receiver|targets)\b", block)
    assert len(components) == 4
    assert {*used} == components - {"loki.source.docker.containers"}
    assert block.count("{") == block.count("}")


async def test_its_table_has_each_field_of_a_request() -> None:
    with recorded() as records:
        await messages(RequestContextMiddleware(answering(b"")), http_scope())
    rows = {name for line in PAGE.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+)`", line)}
    assert fields(records[0]).keys() <= rows
