"""Destinations in metrics: a bounded number of names for any number of domains."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from paquebot.relay import metrics
from paquebot.relay.destination_labels import DestinationLabels
from paquebot.relay.outcome import RelayResult
from paquebot.relay.settings import DestinationLabelSettings
from tests.support.counted import value

METRICS = (
    metrics.DESTINATION_RECIPIENTS,
    metrics.DESTINATION_UNREACHABLE,
    metrics.DESTINATION_WAITING,
    metrics.DESTINATION_RESTING,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    for metric in METRICS:
        metric.clear()
    yield Clock()
    for metric in METRICS:
        metric.clear()


def delivered(destination: str) -> float | None:
    return value("paquebot_relay_destination_recipients_total", destination=destination, outcome="delivered")


def named() -> set[str]:
    return {
        sample.labels["destination"]
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name.startswith("paquebot_relay_destination_")
    }


def test_further_destinations_are_counted_together(clock: Clock) -> None:
    labels = DestinationLabels(DestinationLabelSettings(limit=2, always=()), clock)
    for destination in ("a.test", "b.test", "c.test", "d.test"):
        labels.recipients(destination, RelayResult.DELIVERED, 2)
    assert (delivered("a.test"), delivered("b.test"), delivered("other")) == (2, 2, 4)
    assert named() == {"a.test", "b.test", "other"}


def test_every_series_of_a_destination_exists_from_the_start(clock: Clock) -> None:
    labels = DestinationLabels(DestinationLabelSettings(limit=2, always=()), clock)
    labels.unreachable("a.test")
    for outcome in RelayResult:
        found = value("paquebot_relay_destination_recipients_total", destination="a.test", outcome=outcome.value)
        assert found == 0
    assert value("paquebot_relay_destination_unreachable_total", destination="a.test") == 1


def test_destinations_in_the_settings_always_have_a_name(clock: Clock) -> None:
    labels = DestinationLabels(DestinationLabelSettings(limit=2, always=("big.test",)), clock)
    assert delivered("big.test") == 0
    for destination in ("a.test", "b.test", "big.test"):
        labels.recipients(destination, RelayResult.DELIVERED)
    clock.now += 2 * 3600
    labels.recipients("c.test", RelayResult.DELIVERED)
    assert named() == {"big.test", "c.test", "other"}
    assert (delivered("big.test"), delivered("other")) == (1, 1)


def test_only_a_destination_unused_for_an_hour_frees_its_name(clock: Clock) -> None:
    labels = DestinationLabels(DestinationLabelSettings(limit=2, always=()), clock)
    labels.recipients("old.test", RelayResult.DELIVERED)
    labels.recipients("used.test", RelayResult.DELIVERED)
    clock.now += 3599
    labels.recipients("used.test", RelayResult.DELIVERED)
    labels.recipients("new.test", RelayResult.DELIVERED)
    assert named() == {"old.test", "used.test", "other"}
    clock.now += 1
    labels.recipients("new.test", RelayResult.DELIVERED)
    assert named() == {"new.test", "used.test", "other"}
    assert delivered("new.test") == 1


def test_more_names_in_the_settings_than_the_maximum(clock: Clock) -> None:
    labels = DestinationLabels(DestinationLabelSettings(limit=1, always=("a.test", "b.test")), clock)
    for destination in ("a.test", "b.test", "c.test"):
        labels.recipients(destination, RelayResult.DELIVERED)
    assert named() == {"a.test", "other"}
    assert delivered("other") == 2


def test_a_destination_called_other_uses_no_name(clock: Clock) -> None:
    labels = DestinationLabels(DestinationLabelSettings(limit=1, always=()), clock)
    labels.recipients("other", RelayResult.FAILED)
    labels.recipients("a.test", RelayResult.DELIVERED)
    assert named() == {"a.test", "other"}


def test_waiting_and_resting_are_current_values(clock: Clock) -> None:
    labels = DestinationLabels(DestinationLabelSettings(limit=1, always=()), clock)
    labels.recipients("a.test", RelayResult.DEFERRED)
    labels.measure({"a.test": 3, "b.test": 4, "c.test": 5}, frozenset(("b.test", "c.test")))
    assert value("paquebot_relay_destination_waiting_jobs", destination="a.test") == 3
    assert value("paquebot_relay_destination_waiting_jobs", destination="other") == 9
    assert value("paquebot_relay_destination_resting", destination="other") == 2
    labels.measure({}, frozenset(("a.test",)))
    assert value("paquebot_relay_destination_waiting_jobs", destination="a.test") == 0
    assert value("paquebot_relay_destination_resting", destination="a.test") == 1
    assert value("paquebot_relay_destination_resting", destination="other") == 0
