"""Routes, settings and the retry schedule."""

import pytest

from paquebot.relay.metrics import status_class
from paquebot.relay.retry import RetrySchedule
from paquebot.relay.routing.routes import Route, Routes
from paquebot.relay.settings import RelaySettings, RetrySettings
from paquebot.runtime.settings import Seconds, SettingsError, load
from paquebot.v1.queue_pb2 import RelayJob

HOUR, DAY = 3600.0, 86400.0


def test_the_most_exact_route_wins() -> None:
    routes = Routes(["*=[smart.example]:587", ".example.org=mx.example.net", "a.b.example.org=[192.0.2.1]:26"])
    assert routes.route("a.b.example.org") == Route("192.0.2.1", 26, exchangers=False, static=True)
    assert routes.route("b.example.org") == Route("mx.example.net", static=True)
    assert routes.route("example.org") == Route("smart.example", 587, exchangers=False, static=True, smart_host=True)
    assert routes.route("[192.0.2.9]").smart_host
    assert Routes([]).route("example.org") == Route("example.org")


def test_routes_to_ipv6() -> None:
    assert Routes(["example.org=[2001:db8::1]:25"]).route("example.org").host == "2001:db8::1"


@pytest.mark.parametrize(
    "text", ["example.org", "example.org=", "exa mple=a", "a=b:0", "a=b:99999", "a=b:x", "a=[b", "a=[b]x", "=b"]
)
def test_bad_routes(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be|is not a domain"):
        Routes([text])


def test_settings_report_every_fault_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load(
            RelaySettings,
            {
                "PAQUEBOT_RELAY_ROUTES": "nonsense",
                "PAQUEBOT_RELAY_TLS": "maybe",
                "PAQUEBOT_RELAY_RETRY_JITTER": "7",
            },
        )
    assert len(caught.value.faults) == 3


def test_settings_have_defaults_and_read_their_variables() -> None:
    settings = load(
        RelaySettings,
        {
            "PAQUEBOT_RELAY_DNS": "127.0.0.1:5353",
            "PAQUEBOT_RELAY_RETRY": "1s,5m",
            "PAQUEBOT_RELAY_ROUTES": "example.org=mx.example.net:25,*=[smart.example]:587",
            "PAQUEBOT_RELAY_OWN_ADDRESSES": "192.0.2.0/24",
        },
    )
    assert settings.routing.dns[0].port == 5353
    assert settings.retry.delays == (1.0, 300.0)
    assert settings.client.port == 25
    assert settings.retry.lifetime == 5 * DAY
    assert settings.retry.warn_after == 4 * HOUR


# --- when to try again ---


def job(*, attempt: int = 0, reverse_path: str = "s@example.org", delay_reported: bool = False) -> RelayJob:
    return RelayJob(accepted_at_ms=1_000_000, attempt=attempt, reverse_path=reverse_path, delay_reported=delay_reported)


ACCEPTED = 1000.0
SETTINGS = RetrySettings(jitter=0.5)


def test_waits_grow_and_the_last_repeats() -> None:
    schedule = RetrySchedule(RetrySettings(jitter=0.0), lambda: 1.0)
    waits = [
        schedule.next_attempt(job(attempt=n, delay_reported=True), ACCEPTED) for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 50)
    ]
    assert [round(((at or 0) - ACCEPTED) / 60) for at in waits] == [5, 10, 20, 40, 60, 120, 240, 360, 360, 360]


def test_jitter_only_lengthens_a_wait() -> None:
    assert RetrySchedule(SETTINGS, lambda: 0.0).next_attempt(job(), ACCEPTED) == ACCEPTED + 300
    assert RetrySchedule(SETTINGS, lambda: 1.0).next_attempt(job(), ACCEPTED) == ACCEPTED + 450


def test_a_wait_includes_the_rest_of_the_destination() -> None:
    schedule = RetrySchedule(SETTINGS, lambda: 0.0)
    assert schedule.next_attempt(job(), ACCEPTED, not_before=ACCEPTED + 1000) == ACCEPTED + 1000


def test_the_last_attempt_is_at_the_end_of_the_lifetime() -> None:
    schedule = RetrySchedule(SETTINGS, lambda: 0.0)
    late = ACCEPTED + 5 * DAY - 60
    assert schedule.next_attempt(job(attempt=20), late) == ACCEPTED + 5 * DAY
    assert schedule.next_attempt(job(attempt=21), ACCEPTED + 5 * DAY) is None


def test_a_notification_expires_sooner() -> None:
    schedule = RetrySchedule(SETTINGS, lambda: 0.0)
    assert schedule.next_attempt(job(reverse_path=""), ACCEPTED + 2 * DAY) is None
    assert schedule.next_attempt(job(), ACCEPTED + 2 * DAY) is not None


def test_the_sender_is_warned_once_and_on_time() -> None:
    schedule = RetrySchedule(SETTINGS, lambda: 0.0)
    at = schedule.next_attempt(job(attempt=6), ACCEPTED + 3 * HOUR)
    assert at == ACCEPTED + 4 * HOUR, "a separate attempt"
    assert not schedule.warns(job(), ACCEPTED + 4 * HOUR - 1)
    assert schedule.warns(job(), ACCEPTED + 4 * HOUR)
    assert not schedule.warns(job(delay_reported=True), ACCEPTED + 5 * HOUR)
    assert not schedule.warns(job(reverse_path=""), ACCEPTED + 5 * HOUR)
    never = RetrySchedule(RetrySettings(warn_after=Seconds(0)), lambda: 0.0)
    assert not never.warns(job(), ACCEPTED + 5 * HOUR)


def test_metric_labels_are_bounded() -> None:
    assert [status_class(text) for text in ("4.2.1", "5.1.10", "5.999.1", "nonsense", "")] == [
        "4.2",
        "5.1",
        "other",
        "other",
        "other",
    ]
