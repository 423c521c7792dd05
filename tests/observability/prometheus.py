"""A real Prometheus on the loopback, with the configuration of the project but for its targets and its pace."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from httpx import AsyncClient, HTTPError

from plinth.testing.network import reserved_port

FOLDER = Path(__file__).resolve().parents[2] / "docker/observability"


class Prometheus:
    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._started_at = time.time()

    async def values(self, expression: str) -> list[tuple[dict[str, str], list[float]]]:
        """The labels of each series of an expression, and its values since the start."""
        times = {"start": self._started_at, "end": time.time(), "step": 1}
        answer = await self._client.get("/api/v1/query_range", params={"query": expression, **times})
        assert answer.status_code == 200, answer.text
        series = answer.json()["data"]["result"]
        return [(each["metric"], [float(value) for _, value in each["values"]]) for each in series]

    async def is_ready(self) -> bool:
        try:
            return (await self._client.get("/-/ready")).is_success
        except HTTPError:
            return False


@asynccontextmanager
async def scraping(folder: Path, ports: dict[str, int]) -> AsyncIterator[Prometheus]:
    """Read the port of each job once a second."""
    config: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"]["scrape_interval"] = "1s"
    config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
    for job in config["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    with reserved_port() as port, (folder / "prometheus.log").open("wb") as log:
        argv = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"]
        argv += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
        process = await asyncio.create_subprocess_exec(*argv, stdout=log, stderr=log)
        try:
            async with AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                prometheus = Prometheus(client)
                while not await prometheus.is_ready():
                    assert process.returncode is None, (folder / "prometheus.log").read_text()
                yield prometheus
        finally:
            process.terminate()
            await process.wait()
