"""One installation serves all modules, in the order of their names; the figures are printed at the end of the run."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness.place import Place, find_place
from tests.cluster.harness.release import REPOSITORY, Release

FIGURES: list[tuple[str, str]] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            # What happens to a cluster takes its time: pods end and start, a load balancer learns.
            item.add_marker(pytest.mark.timeout(1500))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("figures of the cluster tests")
        width = max(len(name) for name, _ in FIGURES)
        for name, value in FIGURES:
            terminalreporter.write_line(f"{name:{width}}  {value}")


@pytest.fixture(scope="session")
def figures() -> list[tuple[str, str]]:
    """Rows of the table at the end: what was measured, how much."""
    return FIGURES


@pytest.fixture(scope="session")
def place() -> Place:
    found = find_place()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(scope="session")
def images(place: Place) -> Place:
    """Both images, built from the checkout and known to the nodes. PAQUEBOT_TEST_BUILD=no: as they are there."""
    if os.environ.get("PAQUEBOT_TEST_BUILD") == "no":
        return place
    began = time.monotonic()
    place.build(f"{REPOSITORY}:dev", "runtime")
    place.build(f"{REPOSITORY}-engines:dev", "engines")
    FIGURES.append(("build and load of both images", f"{time.monotonic() - began:.0f} s"))
    return place


@pytest.fixture(scope="session")
def release(request: pytest.FixtureRequest, images: Place) -> Iterator[Release]:
    """The installation, which the first module makes. It goes when the tests end, unless one failed.

    PAQUEBOT_TEST_NAMESPACE: the one that an earlier run left there is used, and left again.
    """
    standing = os.environ.get("PAQUEBOT_TEST_NAMESPACE", "")
    one = Release(images, standing or f"paquebot-tests-{int(time.time()) % 100000}")
    one.make_namespace()
    yield one
    if not standing and not request.session.testsfailed:
        one.forget()


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs of clients, and the certificate they trust."""
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="session")
def installed(release: Release, figures: list[tuple[str, str]]) -> Release:
    """The release, installed with the chart's defaults, every pod ready."""
    began = time.monotonic()
    if not os.environ.get("PAQUEBOT_TEST_NAMESPACE"):
        release.install()
    release.wait_ready(180)
    release.wait_job("migrate", 60)
    release.wait_job("demo", 60)
    took = time.monotonic() - began
    figures.append(("helm install until every pod is ready", f"{took:.0f} s"))
    return release


def needs(program: str) -> str:
    """Path of a real client. Skips the test where it is missing."""
    path = shutil.which(program)
    if not path:
        pytest.skip(f"{program} is not installed")
    return path
