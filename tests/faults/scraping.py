"""Reads /metrics of a real server."""

from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.faults.serving import LIMIT_SECONDS

PROBES = {"method": "GET", "route": "/health/live", "status": "200"}


def scrape(url: str, **headers: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The samples by name."""
    response = httpx.get(url, headers=headers, timeout=30)
    assert response.status_code == 200, response.text
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples


def probes(url: str) -> float:
    """How many requests for liveness all processes have counted."""
    return sum(value for labels, value in scrape(url).get("http_requests_total", []) if labels == PROBES)


def until(condition: Callable[[], bool], seconds: float = LIMIT_SECONDS) -> None:
    """Wait for what other processes do: a response arrives a moment before it is counted."""
    end = monotonic() + seconds
    while not condition():
        assert monotonic() < end, condition
        sleep(0.02)


def metrics_folder(process: int) -> Path:
    """Where a process and those beside it keep their metrics: each maps its files into memory."""
    maps = Path(f"/proc/{process}/maps").read_text()
    return Path(next(line.split()[-1] for line in maps.splitlines() if "/counter_" in line)).parent
