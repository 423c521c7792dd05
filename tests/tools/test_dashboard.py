"""The dashboard, the alerts and their runbooks fit the metrics, one another, and what Compose starts."""

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from plinth.telemetry.metrics import METRICS, SECONDS
from tools import dashboard

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docker/observability"
OPERATIONS = (ROOT / "docs/operations.md").read_text()
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
PANELS = [panel for panel in dashboard.dashboard()["panels"] if panel["type"] != "row"]
SAMPLES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


def names(expression: str) -> set[str]:
    """The metrics of an expression: the names before its selectors, and those that are recorded."""
    return set(re.findall(r"[a-z_]+(?=\{)|(?<=\()[a-z]+_[a-z_]+(?=[\[)])", expression)) | set(
        re.findall(r"service:[\w:]+", expression)
    )


def declared() -> dict[str, set[str]]:
    """The samples of each metric, by its name."""
    families = [family for metric in METRICS for family in metric.describe()]
    return {family.name: {family.name + suffix for suffix in SAMPLES[family.type]} for family in families}


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_the_file_is_what_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    committed = dashboard.FILE.read_text()
    monkeypatch.setattr(dashboard, "FILE", tmp_path / "dashboard.json")
    dashboard.main()
    assert dashboard.FILE.read_text() == committed, "run python -m tools.dashboard"


def test_each_metric_has_a_panel() -> None:
    shown = {name for panel in PANELS for target in panel["targets"] for name in names(target["expr"])}
    assert shown <= set().union(*declared().values())
    assert {name for name, samples in declared().items() if not samples & shown} == set()


def test_panels_have_places_and_names_of_their_own() -> None:
    panels = dashboard.dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= dashboard.COLUMNS for place in places)
    for one, other in combinations(places, 2):
        apart = (
            one[axis] + one[size] <= other[axis] or other[axis] + other[size] <= one[axis]
            for axis, size in ("xw", "yh")
        )
        assert any(apart), (one, other)
    assert all(panel["description"] for panel in PANELS)


def test_rules_are_about_metrics_that_exist() -> None:
    known = set().union(*declared().values()) | RECORDED | {"up"}
    used = {name for rule in RULES for name in names(rule["expr"])}
    assert used <= known
    assert used >= RECORDED
    bounds = {float(bound) for rule in RULES for bound in re.findall(r'le="([\d.]+)"', rule["expr"])}
    assert bounds == {0.05, 0.2} <= set(SECONDS)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_each_alert_has_a_runbook(alert: dict[str, Any]) -> None:
    name = alert["alert"]
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert f"\n### {name}\n\n**Means:** " in OPERATIONS


def test_each_runbook_has_an_alert_and_each_panel_that_is_named_exists() -> None:
    assert re.findall(r"(?m)^### (.*)", OPERATIONS) == [alert["alert"] for alert in ALERTS]
    titles = {panel["title"] for panel in PANELS}
    named = set(re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", OPERATIONS.replace("\n", " ")))
    assert {re.sub(r"\s+", " ", name) for name in named} <= titles


def test_alerts_are_tested() -> None:
    assert {
        alert["alert"] for alert in ALERTS if alert["alert"] not in (FOLDER / "alerts_test.yml").read_text()
    } == set()


def test_prometheus_reads_what_compose_starts() -> None:
    services = {name for file in ("", ".override") for name in load(f"docker-compose{file}.yml")["services"]}
    port = load("docker-compose.yml")["x-environment"]["METRICS_PORT"]
    jobs = {
        job["job_name"]: job["dns_sd_configs"] for job in load("docker/observability/prometheus.yml")["scrape_configs"]
    }
    found = {name: str(each["port"]) for configs in jobs.values() for each in configs for name in each["names"]}
    assert found == {"api": "8000", "api-1": port, "api-2": port, "api-3": port, "worker": port}
    assert found.keys() <= services
    assert any(f'job="{name}"' in alert["expr"] for alert in ALERTS for name in jobs)


def test_grafana_reads_prometheus() -> None:
    [source] = load("docker/observability/grafana/data-sources.yml")["datasources"]
    assert {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]} == {source["uid"]}
    interval = load("docker/observability/prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval
    mounted = [volume.split(":")[0] for volume in load("docker-compose.yml")["services"]["grafana"]["volumes"]]
    assert all((ROOT / path).exists() for path in mounted if path.startswith("./"))
    [provider] = load("docker/observability/grafana/dashboards.yml")["providers"]
    assert any(
        volume.split(":")[1] == f"{provider['options']['path']}/{dashboard.FILE.name}"
        for volume in load("docker-compose.yml")["services"]["grafana"]["volumes"]
    )
