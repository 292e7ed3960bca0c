"""The metrics that every service declares: names, label values, series at the start, and their page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SERVICES = ("smtp_ingress", "recipient_validation", "delivery", "relay", "imap", "pop3")
OWNERS = (
    *("smtp", "recipient_validation", "delivery", "relay", "imap", "pop3"),
    *("spool", "mailstore", "queue", "rpc", "tls", "proxy", "notification"),
    *("engine", "nats", "s3", "postgres"),
)
PROCESS = {
    *("paquebot_build_info", "paquebot_draining", "paquebot_ready", "paquebot_probe_failures_total"),
    *("paquebot_event_loop_session_seconds_total", "paquebot_event_loop_throttled_total"),
    *("paquebot_event_loop_throttled_seconds_total", "paquebot_task_failures_total"),
    *("paquebot_event_loop_delay_seconds", "paquebot_in_flight_bytes", "paquebot_in_flight_limit_bytes"),
}

# Imports a service as its process does, and prints the declared metrics and the series of a scrape.
SCRAPE = """
import importlib, json, sys
importlib.import_module("paquebot." + sys.argv[1] + ".service")
from paquebot.observability.metrics import DECLARED, Bounded
from prometheus_client import REGISTRY
series = [
    {"name": sample.name, "labels": sample.labels, "value": sample.value, "family": family.name, "kind": family.type}
    for family in REGISTRY.collect() for sample in family.samples
]
declared = {
    one.name: {
        "kind": one.kind.value,
        "help": one.help,
        "labels": {k: None if isinstance(v, Bounded) else v for k, v in one.labels.items()},
    }
    for one in DECLARED.values()
}
print(json.dumps({"series": series, "declared": declared}))
"""


@pytest.fixture(scope="module")
def scrapes() -> dict[str, Any]:
    running = {
        service: subprocess.Popen([sys.executable, "-c", SCRAPE, service], stdout=subprocess.PIPE)
        for service in SERVICES
    }
    return {service: json.loads(process.communicate()[0]) for service, process in running.items()}


def test_names_have_owner_and_unit(scrapes: dict[str, Any]) -> None:
    for scrape in scrapes.values():
        for name, one in scrape["declared"].items():
            assert name in PROCESS or name.startswith(tuple(f"paquebot_{owner}_" for owner in OWNERS)), name
            assert re.fullmatch("[a-z0-9_]+", name), name
            assert "octet" not in name, name
            assert name.endswith("_total") == (one["kind"] == "counter"), name
            assert len(one["help"]) > 10, name
            assert not one["help"].endswith("."), name


def test_every_series_is_declared(scrapes: dict[str, Any]) -> None:
    for scrape in scrapes.values():
        families = {name.removesuffix("_total") for name in scrape["declared"]}
        found = {series["family"] for series in scrape["series"] if series["name"].startswith("paquebot_")}
        assert found <= families


def test_counters_have_every_series_at_the_start(scrapes: dict[str, Any]) -> None:
    counted = 0
    for scrape in scrapes.values():
        for name, one in scrape["declared"].items():
            if one["kind"] != "counter" or None in one["labels"].values():
                continue
            expected = 1
            for values in one["labels"].values():
                assert len(values) == len(set(values)), name
                expected *= len(values)
            found = [series for series in scrape["series"] if series["name"] == name]
            assert len(found) == expected, name
            assert {series["value"] for series in found} == {0.0}, name
            counted += expected
    assert counted > 500


def test_a_scrape_of_a_new_process_is_small(scrapes: dict[str, Any]) -> None:
    for service, scrape in scrapes.items():
        assert len(scrape["series"]) < 1200, service
        assert not any(series["name"].endswith("_created") for series in scrape["series"]), service


def test_process_and_interpreter_are_measured(scrapes: dict[str, Any]) -> None:
    wanted = {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"}
    wanted |= {"python_gc_collections_total", "python_info"}
    for service, scrape in scrapes.items():
        assert wanted <= {series["name"] for series in scrape["series"]}, service


def test_page_matches_the_code() -> None:
    generator = [sys.executable, str(ROOT / "docs" / "metrics_catalogue.py")]
    page = subprocess.run(generator, capture_output=True, check=True, text=True).stdout
    assert page == (ROOT / "docs" / "metrics.md").read_text(), "run `make metrics-docs`"
