"""Every query of the dashboards and every alert, against a platform that works."""

from __future__ import annotations

import asyncio
import re
from functools import partial

import pytest

from paquebot.janitor.settings import JanitorSettings
from paquebot.janitor.stores import open_stores
from paquebot.queue import backlog
from paquebot.runtime.settings import load as load_settings
from tests.e2e.platforms import until
from tests.monitoring.conftest import Watched
from tests.monitoring.prometheus_server import Prometheus, Refused, needs_prometheus
from tests.monitoring.queries import DASHBOARDS, alerts, dashboard_queries, load, rules, selectors, substituted
from tests.monitoring.traffic import ABROAD

pytestmark = needs_prometheus
SECONDS = 60.0
POLL_SECONDS = 0.1

EXPECTED = {"PaquebotRelayDestinationFailing"}
"""Two of the hosts abroad take no mail."""


async def test_every_query_of_the_dashboards_returns_data(watched: Watched) -> None:
    missing = dict.fromkeys(dashboard_queries())
    wrong: list[str] = []

    def look() -> bool:
        for query in list(missing):
            try:
                if watched.prometheus.samples(query.expr):
                    del missing[query]
            except Refused as error:
                wrong.append(f"{query.origin}: {error}")
                del missing[query]
        return not missing

    try:
        await until(look, "data for every query", timeout=SECONDS)
    except AssertionError:
        pytest.fail("no data:\n" + "\n".join(f"{query.origin}\n    {query.expr}" for query in missing))
    assert wrong == []


async def test_every_variable_of_the_dashboards_has_values(watched: Watched) -> None:
    for path in DASHBOARDS:
        for variable in load(path)["templating"]["list"]:
            if variable["type"] == "query":
                match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
                assert match, variable["query"]
                found = await asyncio.to_thread(
                    watched.prometheus.label_values, match.group(2), substituted(match.group(1))
                )
                assert found, (path.name, variable["name"])


async def test_every_series_that_a_rule_reads_is_there(watched: Watched) -> None:
    missing = {(rule.get("alert") or rule["record"], one) for rule in rules() for one in selectors(rule["expr"])}

    def look() -> bool:
        missing.difference_update({item for item in missing if watched.prometheus.samples(item[1])})
        return not missing

    try:
        await until(look, "the series of every rule", timeout=SECONDS)
    except AssertionError:
        pytest.fail(f"not there: {sorted(missing)}")


async def test_prometheus_evaluates_every_rule_and_a_platform_that_works_raises_no_alert(watched: Watched) -> None:
    assert len(rules()) == len(await until(watched.prometheus.rules, "the rules"))

    def evaluated() -> bool:
        return all(rule["health"] == "ok" for rule in watched.prometheus.rules())

    await until(evaluated, "an evaluation of every rule without an error")
    raised = {rule["name"] for rule in watched.prometheus.rules() if rule.get("state", "inactive") != "inactive"}
    assert raised <= EXPECTED


async def test_a_held_job_raises_its_alert_until_it_is_released(watched: Watched) -> None:
    environment = watched.platform.plan.client_environment()
    async with open_stores(load_settings(JanitorSettings, environment)) as stores:

        async def hold() -> int:
            waiting = [item async for item in backlog.list_jobs(stores.queue, domain=ABROAD[1], state="later")]
            return await backlog.hold(stores.queue, waiting[:1])

        async with asyncio.timeout(SECONDS):
            while not await hold():
                await asyncio.sleep(POLL_SECONDS)
        await until(lambda: _raised(watched.prometheus, "PaquebotHeldJobs"), "the alert")
        held = [item async for item in backlog.list_jobs(stores.queue, state="held")]
        assert await backlog.release(stores.queue, held) == len(held) > 0
    await until(lambda: not _raised(watched.prometheus, "PaquebotHeldJobs"), "the end of the alert")


async def test_engines_that_are_away_raise_their_alerts(watched: Watched) -> None:
    """All three at once: each is recognised by its own errors."""
    expected = {
        "PaquebotS3Errors",
        "PaquebotNatsErrors",
        "PaquebotPostgresErrors",
        "PaquebotAcceptanceFailing",
        "PaquebotAcceptanceBudgetBurn",
    }
    supervisor = watched.platform.stack.supervisor
    engines = ("s3", "nats", "postgres")
    for engine in engines:
        await supervisor.pause(engine)
    try:
        for name in sorted(expected):
            await until(partial(_raised, watched.prometheus, name), name, timeout=SECONDS)
        overview = [query for query in dashboard_queries() if "Accepted without our fault" in query.origin]
        await until(lambda: watched.prometheus.value(overview[0].expr) < 0.999, "the promise that is not kept")
        unready = "sum(1 - paquebot_ready)"
        await until(lambda: watched.prometheus.value(unready) >= 5, "pods that are not ready")
    finally:
        for engine in engines:
            await supervisor.resume(engine)
    await until(lambda: watched.prometheus.value("sum(paquebot_ready)") == 6, "every pod ready again")


def _raised(prometheus: Prometheus, name: str) -> bool:
    """Whether the condition of one of the alerts of that name holds now, however long it must hold to fire."""
    return any(prometheus.samples(alert["expr"]) for alert in alerts() if alert["alert"] == name)
