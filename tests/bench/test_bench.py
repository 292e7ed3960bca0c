"""The benchmark in short: it runs, counts every message exactly once, and reports every measure. Never a speed."""

from __future__ import annotations

import collections
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.bench import backlog, smtp_rows
from tests.bench.flood import source_program
from tests.bench.ours import Ours, ours_running
from tests.bench.peers import Peers, lacking, peers_running
from tests.bench.report import as_json, as_markdown, machine
from tests.bench.rows import Row, Side, Spread
from tests.bench.session import open_directory
from tests.bench.watch import Reader

MAILBOXES = 10
PLAN = smtp_rows.Plan((5,), 100, 1, 1, warm_up=50, mailboxes=MAILBOXES, exact_statistics=False)
OF_THE_TABLE = {
    "accepted_per_second": True,
    "delivered_per_second": True,
    "cpu_seconds_per_1000_delivered": True,
    "s3_requests_per_1000_accepted": False,
    "wal_syncs_per_1000_delivered": False,
    "idle_services_pss": False,
    "backlog_drained_per_second": False,
}
"""Keys, and whether the other side has such a thing."""

Sides = tuple[Ours, Peers | None]
_RECEIVED_ID = re.compile(rb"\bid ([0-9A-Za-z.-]+)")


@pytest.fixture(scope="module")
async def sides() -> AsyncIterator[Sides]:
    """Both, when this machine has Postfix and Dovecot and we may run them; else ours."""
    if source_program() is None:
        pytest.skip("smtp-source is not installed: make bench-peers")
    async with AsyncExitStack() as stack:
        # Not below pytest's directory, which is root's alone: Postfix and Dovecot change to accounts of their own.
        directory = stack.enter_context(open_directory())
        theirs = None
        if not lacking():
            theirs = await stack.enter_async_context(peers_running(directory / "p", "bench.test", MAILBOXES + 1))
        yield await stack.enter_async_context(ours_running(directory / "o", "bench.test", MAILBOXES + 1)), theirs


async def test_every_measure_is_reported_and_every_message_arrives_once(sides: Sides, tmp_path: Path) -> None:
    ours, theirs = sides
    said: list[str] = []
    rows, remarks = await smtp_rows.measure(ours, theirs, PLAN, tmp_path / "letters", said.append)
    rows += await backlog.rows(ours, 500, MAILBOXES, tmp_path / "letters", said.append)

    found = json.loads(as_json(rows, machine(tmp_path), remarks))
    for key, compared in OF_THE_TABLE.items():
        row = found["rows"][key]
        assert {"ours", "theirs", "ratio", "floor", "goal", "met"} <= set(row)
        assert row["ours"] > 0
        assert (row["ratio"] is not None) == (compared and theirs is not None)
    assert found["rows"]["visible_after_p50.5_sessions"]["ours"] > 0
    assert all(row.title in as_markdown(rows, {}, remarks) for row in rows)
    sent = PLAN.warm_up + 2 * (PLAN.repetitions + PLAN.probed) * PLAN.messages
    for side, more in ((ours, 500), (theirs, 0)):
        if side is not None:
            await _holds_each_once(side, (sent + more) // MAILBOXES)


async def _holds_each_once(side: Side, wanted: int) -> None:
    """Each acceptance has an id of its own in the first Received field, so a message that is there twice shows."""
    ids: collections.Counter[bytes] = collections.Counter()
    for account in range(MAILBOXES):
        reader = await Reader.open(side, account)
        await reader.ask("SELECT INBOX")
        answer = b"".join(await reader.ask("FETCH 1:* (BODY.PEEK[HEADER.FIELDS (RECEIVED)])"))
        await reader.close()
        fields = [part for part in answer.split(b"* ")[1:] if b" FETCH (" in part]
        assert len(fields) == wanted
        for part in fields:
            ids.update(_RECEIVED_ID.findall(part)[-1:])
    assert len(ids) == wanted * MAILBOXES


async def test_the_other_side_stores_each_message_as_a_file(sides: Sides) -> None:
    """What we compare with is a Maildir delivered by Dovecot's LMTP, not something faster."""
    _, theirs = sides
    if theirs is None:
        pytest.skip(lacking())
    files = [path for part in ("new", "cur") for path in (theirs.maildir(0) / part).iterdir()]
    assert len(files) == (PLAN.warm_up + 2 * (PLAN.repetitions + PLAN.probed) * PLAN.messages) // MAILBOXES
    text = files[0].read_text()
    assert "Received: from" in text
    assert "with LMTP" in text


def test_a_ratio_of_times_is_a_ratio_of_speeds() -> None:
    row = Row("k", "t", "s", Spread.of([0.4]), Spread.of([0.1]), 0.25, 0.6, speed_of_seconds=True)
    assert row.ratio == pytest.approx(0.25)
    assert row.meets(row.floor)
    assert not row.meets(row.goal)


def test_less_is_better_where_a_row_says_so() -> None:
    row = Row("k", "t", "s", Spread.of([1.0, 2.0, 9.0]), Spread.of([4.0]), 0.5, 0.3, higher_is_better=False)
    assert row.ours.median == 2.0
    assert row.meets(row.floor)
    assert not row.meets(row.goal)


def test_without_the_other_side_nothing_relative_is_judged() -> None:
    row = Row("k", "t", "1/s", Spread.of([1.0]), None, 1.3, 2.0)
    assert row.meets(row.floor) is None
