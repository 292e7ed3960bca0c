"""The short form of the IMAP benchmark, on our platform alone: that every answer is right under load, never how fast;
and that the load client notices an answer that is not."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from tests.bench.imap_accounts import prepare
from tests.bench.imap_growth import append, grow
from tests.bench.imap_measures import Scale, logins
from tests.bench.imap_mixed import Findings, MixedClient
from tests.bench.imap_model import MailboxModel
from tests.bench.imap_rows import Part, rows
from tests.bench.imap_sync import Mailbox
from tests.bench.imap_tampering import Lie, tampered
from tests.bench.ours import Ours, ours_running

SCALE = Scale(seconds=1.5, wakes=4, messages=150, sessions=8)


@pytest.fixture(scope="module")
async def side(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ours]:
    async with ours_running(tmp_path_factory.mktemp("imap"), "bench.test", accounts=21) as ours:
        yield ours


@pytest.mark.parametrize(
    ("part", "keys"),
    [
        (Part.MIXED, {"imap_mixed_commands_per_second", "imap_mixed_long_cpu_seconds_per_1000"}),
        (Part.IDLE, {"imap_idle_append_p50_ms", "imap_idle_smtp_p99_ms"}),
        (Part.LARGE, {"imap_flags_seconds", "imap_envelope_again_seconds", "imap_bodies_seconds"}),
    ],
)
async def test_every_answer_is_right_under_load(side: Ours, part: Part, keys: set[str]) -> None:
    """What was wrong is in the output."""
    measured = {row.key: row.ours for row in await rows(side, None, SCALE, 1, [part])}
    assert (measured.pop("imap_errors").most, measured.pop("imap_wrong_answers").most) == (0, 0)
    assert keys <= measured.keys()
    assert all(spread.least > 0 for key, spread in measured.items() if "cpu" not in key)  # ticks are 10 ms


def _once(pattern: bytes, replacement: bytes) -> Lie:
    """Changes the first line that the pattern matches."""
    left = [1]

    def lie(line: bytes) -> bytes:
        if left and (changed := re.sub(pattern, replacement, line)) != line:
            left.pop()
            return changed
        return line

    return lie


@pytest.mark.parametrize(
    ("pattern", "replacement", "found"),
    [
        (rb'^\* LIST \(.*INBOX"?\r\n', b"", "LIST shows"),
        (rb"MESSAGES 10", b"MESSAGES 11", "STATUS MESSAGES 11"),
        (rb"UNSEEN 5", b"UNSEEN 4", "STATUS UNSEEN 4"),
        (rb"^\* 10 EXISTS", b"* 9 EXISTS", "9 EXISTS is not within"),
        (rb"\[UIDNEXT \d+\]", b"[UIDNEXT 1]", "UIDNEXT 1 is not above"),
        (rb"^\* 3 FETCH .*\r\n", b"", "leaves out 1 of 10"),
        (rb"^\* 3 FETCH \(UID \d+", b"* 3 FETCH (UID 4000000000", "do not ascend"),
        (rb"(FETCH \(UID \d+ FLAGS \([^)]*)\\Seen", rb"\1\\Draft", "has flags"),
        (rb"charset=iso-8859-1", b"charset=iso-8859-2", "is not the message"),
        (rb"APPENDUID (\d+) \d+", rb"APPENDUID \1 1", "APPENDUID 1 "),
        (rb"^\* 1 EXPUNGE\r\n", b"", "no session showed the EXPUNGE"),
        (rb"^\* BYE.*\r\n", b"", "without BYE"),
    ],
)
async def test_a_false_answer_is_noticed(side: Ours, pattern: bytes, replacement: bytes, found: str) -> None:
    """One session through a hop that falsifies one line."""
    client = await _filled(side)
    async with tampered(client.login, _once(pattern, replacement)) as client.login:
        await client.noted(client.session)
    assert any(found in text for text in client.findings.wrong), client.findings


async def test_the_hop_alone_changes_nothing(side: Ours) -> None:
    client = await _filled(side)
    async with tampered(client.login, lambda line: line) as client.login:
        await client.noted(client.session)
    assert (client.findings.errors, client.findings.wrong) == ([], [])


@pytest.mark.parametrize(
    ("pattern", "replacement", "found"),
    [
        (rb"^\* 3 EXISTS", b"* 2 EXISTS", "EXISTS of 3"),
        (rb"(FETCH \(UID \d+ FLAGS \()", rb"\1\\Draft", "flags of UID"),
        (rb"Benchmark message false-1", b"Benchmark message false-0", "not each message once"),
        (rb"Bench Reader", b"Bench Sender", "envelope of UID"),
        (rb"RFC822.SIZE 4", b"RFC822.SIZE 5", "RFC822.SIZE said"),
        (rb"INTERNALDATE", b"INTERNALDATA", "INTERNALDATE None"),
        (rb'"8BIT" 3', b'"8BIT" 2', "bytes and lines"),
        (rb"(?i)iso-8859-1", b"iso-8859-2", "bodystructure of UID"),
        (rb"^MIME-Version: 1.0\r\n", b"MIME-Version: 1.1\r\n", "not what was sent"),
        (rb"^\* 2 FETCH \(UID", b"* 1 FETCH (UID", "not one for each message"),
    ],
)
async def test_a_false_answer_about_a_large_mailbox_is_noticed(
    side: Ours, pattern: bytes, replacement: bytes, found: str
) -> None:
    (login,) = logins(side, [14])
    names = [f"false-{number}" for number in range(3)]
    await prepare(login, MailboxModel())
    await append(login, names)
    async with tampered(login, _once(pattern, replacement)) as falsified:
        wrong = (await Mailbox(falsified, names).synchronise()).wrong
    assert any(found in text for text in wrong), wrong


async def test_a_mailbox_that_grows_is_whole_at_each_size(side: Ours) -> None:
    growth = await grow(side, [3, 60])
    assert {size: found.wrong for size, found in growth.items()} == {3: [], 60: []}


async def _filled(side: Ours) -> MixedClient:
    """The only client of its account."""
    (login,) = logins(side, [13])
    client = MixedClient(login, "alone", MailboxModel(), Findings())
    await prepare(login, client.model)
    await client.fill()
    return client
