"""`python -m tools.dashboard`: writes docker/observability/dashboard.json, the dashboard for Grafana.

Its queries are made of the metrics of plinth/telemetry/metrics.py, so that a renamed metric cannot leave a panel empty.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.metrics import MetricWrapperBase

from plinth.telemetry import metrics

FILE = Path(__file__).resolve().parent.parent / "docker" / "observability" / "dashboard.json"
DATA_SOURCE = {"type": "prometheus", "uid": "prometheus"}
COLUMNS, SHORT, TALL = 24, 4, 8
LEGEND = {"displayMode": "list", "placement": "bottom", "showLegend": True}
SUFFIXES = {"counter": "_total", "histogram": "_bucket"}
INSTANCE = 'instance=~"$instance"'
ROUTE = 'route=~"$route"'
REQUEST = f'{ROUTE}, route!~"/health/.*"'  # probes of the orchestrator are no requests of a client
TIMED = f'{ROUTE}, route!~"/health/.*|.*/(bulk|events|export)"'  # what does not last as long as its client


@dataclass(frozen=True)
class Panel:
    title: str
    description: str
    unit: str
    queries: dict[str, str]
    """PromQL by its legend."""
    objective: float | None = None
    """Where the red part begins."""
    kind: str = "timeseries"


def name_of(metric: MetricWrapperBase) -> str:
    """The name of the metric's samples; of a histogram, that of its buckets."""
    [family] = metric.describe()
    return family.name + SUFFIXES.get(family.type, "")


def selector(metric: MetricWrapperBase, *matchers: str) -> str:
    return f"{name_of(metric)}{{{', '.join((INSTANCE, *matchers))}}}"


def by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""


def rate(metric: MetricWrapperBase, labels: str = "", *matchers: str) -> str:
    """Events, or seconds, per second."""
    return f"sum{by(labels)}(rate({selector(metric, *matchers)}[$__rate_interval]))"


def gauge(metric: MetricWrapperBase, labels: str = "", how: str = "sum") -> str:
    return f"{how}{by(labels)}({selector(metric)})"


def quantile(q: float, metric: MetricWrapperBase, labels: str = "", *matchers: str) -> str:
    return f"histogram_quantile({q}, {rate(metric, f'le, {labels}' if labels else 'le', *matchers)})"


def share(part: str, whole: str) -> str:
    """`part` of `whole`; none of something is 0, and not "No data"."""
    return f"({part} or 0 * {whole}) / {whole}"


REQUESTS = rate(metrics.REQUESTS, "", REQUEST)
ERRORS = share(rate(metrics.REQUESTS, "", REQUEST, 'status=~"5.."'), REQUESTS)
CPU = f"{rate(metrics.CPU_SECONDS, 'instance')} / {gauge(metrics.CPU_CORES, 'instance', 'max')}"


def latency(q: float, labels: str = "") -> str:
    return quantile(q, metrics.REQUEST_SECONDS, labels, TIMED)


def within(seconds: float) -> str:
    """The part of the requests that took less: `seconds` is the bound of a bucket."""
    faster, all = (rate(metrics.REQUEST_SECONDS, "", TIMED, f'le="{bound}"') for bound in (seconds, "+Inf"))
    return f"{faster} / {all}"


def per_request(metric: MetricWrapperBase) -> str:
    return f"{rate(metric, 'route', REQUEST)} / {rate(metrics.REQUESTS, 'route', REQUEST)}"


ROWS: dict[str, list[Panel]] = {
    "Objectives": [
        Panel("Errors", "Responses 5xx, without probes: below 0.1 %.", "percentunit", {"": ERRORS}, 0.001, "stat"),
        Panel("Median", "Half of the requests: below 50 ms.", "s", {"": latency(0.5)}, 0.05, "stat"),
        Panel("p99", "99 % of the requests: below 200 ms.", "s", {"": latency(0.99)}, 0.2, "stat"),
        Panel("CPU", "The busiest instance: below 70 %.", "percentunit", {"": f"max({CPU})"}, 0.7, "stat"),
    ],
    "Traffic": [
        Panel(
            "Requests by status",
            "Without probes; responses from the cache count as well.",
            "reqps",
            {"{{status}}": rate(metrics.REQUESTS, "status", REQUEST)},
        ),
        Panel(
            "Requests by route",
            "The ten with the most requests.",
            "reqps",
            {"{{method}} {{route}}": f"topk(10, {rate(metrics.REQUESTS, 'method, route', REQUEST)})"},
        ),
        Panel(
            "Requests in progress",
            "What an instance answers at the same time. It rises when something behind it becomes slow.",
            "short",
            {"{{instance}}": gauge(metrics.IN_PROGRESS, "instance")},
        ),
    ],
    "Errors": [
        Panel("Share of errors", "Responses 5xx.", "percentunit", {"5xx": ERRORS}, 0.001),
        Panel(
            "Errors by route",
            "500 is a fault of the code, 503 and 504 are load or a server that is away. The log has each with its id.",
            "reqps",
            {
                "{{status}} {{method}} {{route}}": rate(
                    metrics.REQUESTS, "status, method, route", REQUEST, 'status=~"5.."'
                )
            },
        ),
        Panel(
            "Refused requests by status",
            "Responses 4xx, and 499: the client left before the response.",
            "reqps",
            {"{{status}}": rate(metrics.REQUESTS, "status", REQUEST, 'status=~"4.."')},
        ),
    ],
    "Latency": [
        Panel(
            "Latency",
            "Time to the last byte, without bulk, events and export.",
            "s",
            {"p50": latency(0.5), "p90": latency(0.9), "p99": latency(0.99)},
        ),
        Panel(
            "p99 by route",
            "The ten slowest routes.",
            "s",
            {"{{method}} {{route}}": f"topk(10, {latency(0.99, 'method, route')})"},
            0.2,
        ),
        Panel(
            "Within the objectives",
            "Half of the requests should take less than 50 ms, and 99 % less than 200 ms.",
            "percentunit",
            {"50 ms": within(0.05), "200 ms": within(0.2)},
        ),
    ],
    "Saturation": [
        Panel("CPU", "Part of the cores that an instance may use.", "percentunit", {"{{instance}}": CPU}, 0.7),
        Panel(
            "Refused in overload",
            "Requests that arrived faster than a process can answer. They are errors, of the route `unknown`.",
            "reqps",
            {"{{priority}}": rate(metrics.SHED, "priority")},
        ),
        Panel(
            "Event loop lag (p99)",
            "Code that blocks the loop delays all requests of its process.",
            "s",
            {"{{instance}}": quantile(0.99, metrics.LOOP_LAG_SECONDS, "instance")},
            0.1,
        ),
        Panel(
            "Garbage collection (p99)",
            "Pauses of a process.",
            "s",
            {"generation {{generation}}": quantile(0.99, metrics.GC_PAUSE_SECONDS, "generation")},
        ),
        Panel(
            "Memory",
            "Resident memory of the processes of an instance.",
            "bytes",
            {"{{instance}}": gauge(metrics.MEMORY_BYTES, "instance")},
        ),
        Panel(
            "Processes",
            "Processes that are alive. A step down and up is one that was replaced.",
            "short",
            {"{{instance}} {{kind}}": gauge(metrics.PROCESSES, "instance, kind")},
        ),
    ],
    "Cache": [
        Panel(
            "Hits by level",
            "Part of the look-ups that each level answered.",
            "percentunit",
            {
                "{{cache}} {{result}}": f"{rate(metrics.CACHE_REQUESTS, 'cache, result')}"
                f" / on (cache) group_left () {rate(metrics.CACHE_REQUESTS, 'cache')}"
            },
        ),
        Panel(
            "Look-ups",
            "Look-ups in the cache of responses and in that of values.",
            "ops",
            {"{{cache}} {{result}}": rate(metrics.CACHE_REQUESTS, "cache, result")},
        ),
    ],
    "Database": [
        Panel(
            "Connections in use",
            "Part of each pool: `changes` are transactions, `reads` are reads without one.",
            "percentunit",
            {"{{pool}}": f"{gauge(metrics.POOL_USED, 'pool')} / {gauge(metrics.POOL_SIZE, 'pool')}"},
            0.9,
        ),
        Panel(
            "Waiting for a connection",
            "Callers that wait while all connections are in use.",
            "short",
            {"{{pool}}": gauge(metrics.POOL_WAITING, "pool")},
            1,
        ),
        Panel(
            "Wait for a connection (p99)",
            "Of those that had to wait.",
            "s",
            {"{{pool}}": quantile(0.99, metrics.POOL_WAIT_SECONDS, "pool")},
        ),
        Panel(
            "Statements per request",
            "A number that grows with the data is a query in a loop.",
            "short",
            {"{{route}}": per_request(metrics.QUERIES)},
        ),
        Panel(
            "Database time per request",
            "Time that requests waited for statements.",
            "s",
            {"{{route}}": per_request(metrics.DATABASE_SECONDS)},
        ),
    ],
    "Jobs": [
        Panel(
            "Jobs by state",
            "Of the whole queue. Dead jobs have failed for good and wait for a person.",
            "short",
            {"{{queue}} {{state}}": gauge(metrics.QUEUE_JOBS, "queue, state", "max")},
        ),
        Panel(
            "Oldest ready job",
            "How long it has waited for a worker.",
            "s",
            {"{{queue}}": gauge(metrics.QUEUE_OLDEST_SECONDS, "queue", "max")},
            60,
        ),
        Panel(
            "Attempts by outcome",
            "An attempt that fails is repeated later, unless it was the last one.",
            "ops",
            {"{{name}} {{outcome}}": rate(metrics.JOB_ATTEMPTS, "name, outcome")},
        ),
        Panel(
            "Duration of an attempt (p90)",
            "Whatever its outcome.",
            "s",
            {"{{name}}": quantile(0.9, metrics.JOB_SECONDS_TAKEN, "name")},
        ),
    ],
    "Limits and build": [
        Panel(
            "Refusals by a rate limit", "Responses 429.", "reqps", {"{{limit}}": rate(metrics.LIMIT_REFUSALS, "limit")}
        ),
        Panel(
            "Instances by version",
            "Two versions are a deployment in progress.",
            "short",
            {"{{version}}, Python {{python}}": f"count by (version, python) ({selector(metrics.BUILD)})"},
        ),
    ],
}


def lines(panels: Sequence[Panel]) -> Iterator[Sequence[Panel]]:
    """Four panels fit one line; of others there are at most three on each."""
    most = 4 if len(panels) == 4 else 3
    yield from (panels[first : first + most] for first in range(0, len(panels), most))


def layout() -> Iterator[dict[str, Any]]:
    y = 0
    for title, panels in ROWS.items():
        yield {"type": "row", "title": title, "collapsed": False, "gridPos": place(0, y, COLUMNS, 1), "panels": []}
        y += 1
        for line in lines(panels):
            width, height = COLUMNS // len(line), SHORT if line[0].kind == "stat" else TALL
            yield from (grafana(each, place(n * width, y, width, height)) for n, each in enumerate(line))
            y += height


def place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def grafana(panel: Panel, position: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"value": None, "color": "green"}]
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.objective is not None:
        steps.append({"value": panel.objective, "color": "red"})
    if panel.kind == "stat":
        options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "area"}
    else:
        options = {"legend": LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}}
        style = "off" if panel.objective is None else "dashed"
        defaults["custom"] = {"fillOpacity": 10, "showPoints": "never", "thresholdsStyle": {"mode": style}}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATA_SOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": DATA_SOURCE, "expr": expression, "legendFormat": legend}
            for n, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


def variable(label: str, metric: MetricWrapperBase) -> dict[str, Any]:
    query = f"label_values({name_of(metric)}, {label})"
    return {
        "type": "query",
        "name": label,
        "label": label.capitalize(),
        "datasource": DATA_SOURCE,
        "query": {"qryType": 1, "query": query, "refId": label},
        "definition": query,
        "refresh": 2,  # whenever the time range changes: instances come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard() -> dict[str, Any]:
    return {
        "uid": "service",
        "title": "Service",
        "tags": ["service"],
        "schemaVersion": 42,
        "editable": False,
        "graphTooltip": 1,  # the crosshair is in all panels
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "timezone": "browser",
        "templating": {"list": [variable("instance", metrics.MEMORY_BYTES), variable("route", metrics.REQUESTS)]},
        "annotations": {"list": []},
        "panels": [{"id": id, **panel} for id, panel in enumerate(layout(), 1)],
    }


def main() -> None:
    FILE.write_text(json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
