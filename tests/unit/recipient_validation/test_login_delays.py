"""Delays after failed logins."""

import asyncio

import pytest

from paquebot.directory.login_limits import LimitPolicy, LoginAttempt, unknown_subject
from paquebot.recipient_validation.login_delays import DelaySlots, RecentRefusals, delay_seconds

POLICY = LimitPolicy(pair=10, client=20, login=10, recovery=30.0)


def attempt(*, pair: float = 1.0, client: float = 1.0, login: float = 1.0) -> LoginAttempt:
    return LoginAttempt((), pair, client, login)


def test_the_delay_doubles_after_a_few_failures() -> None:
    waits = [delay_seconds(attempt(pair=float(failures)), POLICY, 3.0) for failures in range(1, 10)]
    assert waits == [0, 0, 0, 0.25, 0.5, 1.0, 2.0, 3.0, 3.0]


def test_failures_from_all_networks_delay_a_login() -> None:
    assert delay_seconds(attempt(login=10.0), POLICY, 3.0) == 0
    assert delay_seconds(attempt(login=11.0), POLICY, 3.0) == 0.25
    assert delay_seconds(attempt(login=22.0), POLICY, 3.0) == 3.0
    assert delay_seconds(attempt(login=1e9), POLICY, 3.0) == 3.0


def test_a_client_with_many_failures_is_delayed_for_each_login() -> None:
    assert delay_seconds(attempt(client=10.0), POLICY, 3.0) == 0
    assert delay_seconds(attempt(client=12.0), POLICY, 3.0) == 0.5


def test_delays_can_be_disabled() -> None:
    assert delay_seconds(attempt(pair=9.0), POLICY, 0.0) == 0


async def test_delayed_answers_are_limited_for_each_client_and_in_total() -> None:
    delays = DelaySlots(limit=3, per_client=2)
    waiting = [asyncio.ensure_future(delays.wait(network, 3600.0)) for network in ("a", "a", "b")]
    await asyncio.sleep(0)
    assert len(delays) == 3
    assert not await delays.wait("c", 3600.0)  # three in total
    waiting[2].cancel()
    await asyncio.gather(waiting[2], return_exceptions=True)
    assert not await delays.wait("a", 3600.0)  # two of this client
    assert await delays.wait("c", 0.0)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert len(delays) == 0


@pytest.mark.parametrize("network", ["2001:db8:1:%x::/64", "192.0.2.%d"])
async def test_a_site_does_not_take_all_slots(network: str) -> None:
    delays = DelaySlots(limit=200, per_client=5)
    waiting = [asyncio.ensure_future(delays.wait(network % (number % 50), 3600.0)) for number in range(250)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(delays) == 20
    assert await delays.wait("203.0.113.1", 0.0)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (len(delays), delays._sites) == (0, {})


def test_refusals_expire_and_their_number_is_limited() -> None:
    now = 100.0
    refusals = RecentRefusals(2, lambda: now)
    refusals.add((1, "a"), 30.0)
    assert refusals.wait((1, "a")) == 30.0
    assert refusals.wait((1, "b")) == 0.0
    now = 130.0
    assert refusals.wait((1, "a")) == 0.0
    assert len(refusals) == 0
    for number in range(3):
        refusals.add((number, "a"), 30.0)
    assert len(refusals) == 2
    assert refusals.wait((0, "a")) == 0.0


def test_an_unknown_login_has_an_id_that_depends_on_the_key() -> None:
    subjects = {unknown_subject(key, login) for key in (b"1", b"2") for login in ("a", "b", "\udcff")}
    assert len(subjects) == 6
    assert all(-(2**63) <= subject < 0 for subject in subjects)
    assert unknown_subject(b"1", "a") == unknown_subject(b"1", "a")
