"""A real Prometheus that scrapes a running platform once a second and evaluates the chart's rules."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.platforms import until
from tests.support.loopback import free_port

CHART = Path(__file__).parents[2] / "charts" / "paquebot"
RULES = CHART / "rules"
NAMESPACE = "post"
MISSING = "Prometheus is not installed: apt-get install prometheus"

needs_prometheus = pytest.mark.skipif(not (shutil.which("prometheus") and shutil.which("promtool")), reason=MISSING)


class Refused(Exception):
    """Prometheus does not take the query; its own words."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    url: str

    def samples(self, expr: str) -> list[dict[str, Any]]:
        """What an instant query gives now, without the samples that are not a number. Raises Refused."""
        found = self._get("/api/v1/query", {"query": expr})["result"]
        return [sample for sample in found if not math.isnan(float(sample["value"][1]))]

    def value(self, expr: str) -> float:
        """The sum over the samples of an instant query."""
        return sum(float(sample["value"][1]) for sample in self.samples(expr))

    def label_values(self, label: str, match: str) -> list[str]:
        found: list[str] = self._get(f"/api/v1/label/{label}/values", {"match[]": match})
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its state, as Prometheus sees it."""
        return [rule for group in self._get("/api/v1/rules", {})["groups"] for rule in group["rules"]]

    def _get(self, path: str, parameters: Mapping[str, str]) -> Any:
        url = f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code not in (400, 422):  # it is still starting
                    raise ConnectionError(error.reason) from None
                raise Refused(json.load(error)["error"]) from None


def _start(directory: Path, targets: Mapping[str, int], port: int) -> subprocess.Popen[bytes]:
    directory.mkdir(parents=True)
    configuration = directory / "prometheus.yml"
    configuration.write_text(yaml.safe_dump(_configuration(targets)))
    command = [
        "prometheus",
        f"--config.file={configuration}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def _configuration(targets: Mapping[str, int]) -> dict[str, Any]:
    # In a cluster the PodMonitors add the two labels.
    pods = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": NAMESPACE, "pod": pod}}
        for pod, port in targets.items()
    ]
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in sorted(RULES.glob("*.yaml"))],
        "scrape_configs": [{"job_name": "paquebot", "static_configs": pods}],
    }


@asynccontextmanager
async def scraping(directory: Path, targets: Mapping[str, int]) -> AsyncIterator[Prometheus]:
    """`targets`: name of a pod to the port of its metrics. Ends with the block; nothing is left running."""
    port = free_port()
    process = await asyncio.to_thread(_start, directory, targets, port)
    prometheus = Prometheus(f"http://127.0.0.1:{port}")

    def all_up() -> bool:
        assert process.poll() is None, (directory / "log").read_text()[-2000:]
        try:
            return prometheus.value("sum(up)") == len(targets)
        except OSError:
            return False

    try:
        await until(all_up, "the first scrape of every service")
        yield prometheus
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 20)
