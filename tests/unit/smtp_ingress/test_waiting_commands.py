"""The memory of commands that wait to be read is charged to their client, as that of messages is."""

import pytest

from paquebot.runtime.shares.budget import SharedBudget
from paquebot.runtime.shares.in_flight import ShareSettings, byte_shares, stranger
from paquebot.smtp_ingress.connection import SlotTaken, SmtpConnection

_KIB = 1024


def connection(budget: SharedBudget, address: str) -> SmtpConnection:
    made = SmtpConnection(write_timeout=1.0)
    made.charge_to(budget.reservation(stranger(address)))
    return made


def budget() -> SharedBudget:
    return byte_shares(1000 * _KIB, ShareSettings(reserved=0.0, network=1.0, client=1.0), longest=0)


async def test_many_waiting_commands_are_charged_until_they_are_read() -> None:
    shares = budget()
    client = connection(shares, "192.0.2.1")
    client.data_received(b"NOOP\r\n" * 1000)
    assert shares.used == 0
    client.data_received(b"NOOP\r\n" * 10_000)
    assert shares.used == 66_000
    for _ in range(11_000):
        await client.line(100, 1.0)
    assert shares.used == 0
    client.data_received(b"x" * 100 * _KIB)
    client.connection_lost(None)
    assert shares.used == 0


async def test_a_client_that_fills_the_budget_loses_its_connection() -> None:
    shares = budget()
    hostile = [connection(shares, "192.0.2.1") for _ in range(20)]
    for one in hostile:
        one.data_received(b"x" * 256 * _KIB)
    assert shares.used <= 1000 * _KIB
    with pytest.raises(SlotTaken):
        await hostile[-1].line(100, 1.0)
    modest = connection(shares, "198.51.100.1")
    modest.data_received(b"NOOP\r\n" * 10_000)
    assert await modest.line(100, 1.0) == b"NOOP\r\n"


async def test_content_is_charged_to_its_message() -> None:
    shares = budget()
    client = connection(shares, "192.0.2.1")
    client.content_begins()
    client.data_received(b"x" * 100 * _KIB)
    assert shares.used == 0
    client.content_ends()
    assert shares.used == 100 * _KIB
