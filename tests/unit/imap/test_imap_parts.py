"""The parts of the IMAP service that need no engine: the gate, the connection, the feed, search keys, dispatch."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from array import array
from collections.abc import AsyncIterator
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.blobs import BlobsUnavailable
from paquebot.imap.capabilities import after_login, before_login
from paquebot.imap.connection import ImapConnection, Inactive, TruncatedLine
from paquebot.imap.dispatch import handler_of
from paquebot.imap.errors import reply_to
from paquebot.imap.mailbox_view.view import NoSuchSequenceNumber, View, parse_flags
from paquebot.imap.reply import ReplyStatus
from paquebot.imap.search.facts import Columns, MessageFacts
from paquebot.imap.search.keys import BadSearchText, SearchContext, UnknownCharset, compile_key, uses_mod_seq
from paquebot.imap.settings import ImapSettings
from paquebot.imap.states import (
    Authenticated,
    LoggedInAccount,
    LoggedOut,
    NotAuthenticated,
    Selected,
    condstore_enabled,
)
from paquebot.mailstore import Flag, FlagRows, RecentRange
from paquebot.mailstore.errors import NoSuchMailbox, OverQuota
from paquebot.runtime.net.connection import LongAhead, PeerGone
from paquebot.runtime.postgres.pool import PostgresUnavailable
from paquebot.runtime.settings import SettingsError, load
from paquebot.wire.imap import COMMAND_STATES, State, ast
from paquebot.wire.imap.sequence_set import SeqRange, SequenceSet

ACCOUNT = LoggedInAccount(1, "a@imap.test", 0)


def view() -> View:
    rows = FlagRows(
        uids=array("I", (3, 5, 9)),
        flags=bytes((Flag.SEEN, Flag.FLAGGED | Flag.DELETED, 0)),
        mod_seqs=array("Q", (10, 11, 12)),
        keywords={9: ("$Junk",)},
    )
    return View(rows, 12)


def selected(enabled: frozenset[str] = frozenset()) -> Selected:
    return Selected(ACCOUNT, enabled, 1, "INBOX", 1, read_only=False, view=view())


# --- the connection --------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def pair(*, write_timeout: float = 5.0) -> AsyncIterator[tuple[ImapConnection, asyncio.StreamWriter]]:
    """A Connection and the writer of its peer."""
    connection = ImapConnection(write_timeout=write_timeout)
    server = await asyncio.get_running_loop().create_server(lambda: connection, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield connection, writer
    finally:
        connection.abort()
        writer.transport.abort()
        server.close()
        await server.wait_closed()


@given(st.data())
async def test_lines_are_found_however_they_are_cut(data: st.DataObject) -> None:
    lines = data.draw(st.lists(st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b"").rstrip(b"\r"))))
    raw = b"".join(line + data.draw(st.sampled_from([b"\r\n", b"\n"])) for line in lines)
    connection = ImapConnection(write_timeout=1)
    found: list[bytes | TruncatedLine] = []
    while raw:
        size = data.draw(st.integers(1, 7))
        connection.data_received(raw[:size])
        raw = raw[size:]
        while (line := connection.take_line(100)) is not None:
            found.append(line)
    assert found == lines


@given(st.integers(1, 30), st.integers(0, 60), st.integers(1, 9))
async def test_line_limit_is_exact_and_the_rest_is_skipped(maximum: int, length: int, size: int) -> None:
    connection = ImapConnection(write_timeout=1)
    raw = b"x" * length + b"\r\nnext\r\n"
    found: list[bytes | TruncatedLine] = []
    for start in range(0, len(raw), size):
        connection.data_received(raw[start : start + size])
        while (line := connection.take_line(max(maximum, 4) if found else maximum)) is not None:
            found.append(line)
    first = b"x" * length if length <= maximum else TruncatedLine(b"x" * maximum)
    assert found == [first, b"next"]


async def test_inactive_peer_and_lost_peer() -> None:
    async with pair() as (connection, writer):
        with pytest.raises(Inactive):
            await connection.read_line(10, 0.05)
        writer.write(b"half a li")
        with pytest.raises(Inactive):
            await connection.read_line(100, 0.05)
        writer.close()
        with pytest.raises(PeerGone):
            await connection.read_line(100, 5)


async def test_reading_stops_above_the_high_water_mark() -> None:
    async with pair() as (connection, writer):
        connection.logged_in()
        writer.write(b"y" * 4_000_000)
        chunk = await connection.read_some(1, 5)
        await asyncio.sleep(0.05)
        assert connection.buffered < 1_000_000
        while len(chunk) < 4_000_000:
            chunk += await connection.read_some(4_000_000 - len(chunk), 5)
        assert chunk == b"y" * 4_000_000


async def test_too_much_pipelined_before_login_ends_the_connection() -> None:
    async with pair() as (connection, writer):
        writer.write(b"y" * 4_000_000)

        async def read_on() -> None:
            while True:
                await connection.read_some(1, 5)

        with pytest.raises(PeerGone):
            await read_on()
        assert connection.buffered == 0


async def test_a_few_clients_at_a_time_may_send_a_long_first_command() -> None:
    room = LongAhead(40 * 1024, clients=1)
    long = b"a ID (" + b"y" * 30_000

    def fed(chunk: bytes) -> ImapConnection:
        connection = ImapConnection(write_timeout=1, long_ahead=room)
        for start in range(0, len(chunk), 1000):
            connection.data_received(chunk[start : start + 1000])
        return connection

    def ended(connection: ImapConnection) -> bool:
        return connection.ended

    first = fed(long)
    assert not ended(first) and first.buffered == len(long)
    second = fed(long)
    assert second.ended  # there is space for one client
    assert fed(b"a NOOP\r\n" * 3000).ended  # many commands are not one long one
    first.logged_in()
    third = fed(long)
    assert not ended(third)
    third.data_received(b"y" * 20_000)  # above the limit
    assert third.ended
    third.connection_lost(None)
    assert not fed(long).ended


async def test_peer_that_does_not_read_is_dropped() -> None:
    async with pair(write_timeout=0.2) as (connection, writer):
        writer.write(b"\r\n")
        await connection.read_line(10, 5)

        async def send_without_end() -> None:
            while True:
                await connection.send(b"z" * 1_000_000)

        with pytest.raises(PeerGone):
            await asyncio.wait_for(send_without_end(), 20)


async def test_ring_wakes_a_wait_and_is_not_lost() -> None:
    async with pair() as (connection, writer):
        writer.write(b"x")
        await connection.read_some(1, 5)
        connection.ring()
        await asyncio.wait_for(connection.wait(5), 1)
        waiting = asyncio.create_task(connection.wait(5))
        await asyncio.sleep(0)
        connection.ring()
        await asyncio.wait_for(waiting, 1)


# --- dispatch --------------------------------------------------------------------------------------------

_STATES: dict[State, NotAuthenticated | Authenticated | Selected] = {
    State.NOT_AUTHENTICATED: NotAuthenticated(),
    State.AUTHENTICATED: Authenticated(ACCOUNT),
    State.SELECTED: selected(),
}
_NOT_OFFERED = {ast.UnknownCommand}


def test_every_command_has_a_handler_exactly_where_the_standard_allows_it() -> None:
    for kind in get_args(ast.Command):
        command = object.__new__(kind)
        for name, state in _STATES.items():
            allowed = name in COMMAND_STATES[kind] and kind not in _NOT_OFFERED
            assert (handler_of(command, state) is not None) == allowed, (kind, name)
        assert handler_of(command, LoggedOut()) is None


def test_capabilities_by_state() -> None:
    assert "LOGINDISABLED" in before_login(tls=False, starttls=True)
    assert "STARTTLS" not in before_login(tls=False, starttls=False)
    assert "AUTH=PLAIN" not in before_login(tls=False, starttls=True)
    assert {"AUTH=PLAIN", "SASL-IR", "LITERAL+"} <= set(before_login(tls=True, starttls=True))
    assert "APPENDLIMIT=123" in after_login(123)
    assert "STARTTLS" not in after_login(1)


# --- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NoSuchSequenceNumber(), ReplyStatus.BAD, None),
        (NoSuchMailbox("x"), ReplyStatus.NO, b"NONEXISTENT"),
        (OverQuota(1, 2, 3), ReplyStatus.NO, b"OVERQUOTA"),
        (PostgresUnavailable("password=hunter2 host=10.0.0.1"), ReplyStatus.NO, b"UNAVAILABLE"),
        (BlobsUnavailable("s3.internal"), ReplyStatus.NO, b"UNAVAILABLE"),
        (ConnectionResetError("10.0.0.1"), ReplyStatus.NO, b"UNAVAILABLE"),
        (ZeroDivisionError("hunter2"), ReplyStatus.NO, b"SERVERBUG"),
    ],
)
def test_errors_become_replies_without_their_text(error: Exception, status: ReplyStatus, code: bytes | None) -> None:
    reply = reply_to(error)
    assert (reply.status, reply.code) == (status, code)
    line = reply.completion(b"a")
    assert b"hunter2" not in line and b"internal" not in line and b"10.0.0.1" not in line


# --- flags and states ------------------------------------------------------------------------------------


def test_flags_of_a_message() -> None:
    seen = view()
    seen.claim(RecentRange(9, 10))
    assert seen.flag_names(1) == ("\\Seen",)
    assert seen.flag_names(2) == ("\\Flagged", "\\Deleted")
    assert seen.flag_names(3) == ("$Junk", "\\Recent")


def test_flag_lists_are_split() -> None:
    assert parse_flags(("\\Seen", "$Label", "\\Draft", "\\Recent")) == (Flag.SEEN | Flag.DRAFT, ("$Label",))


def test_condstore_is_enabled_once_and_stays() -> None:
    state = condstore_enabled(selected())
    assert state.condstore and not state.qresync
    assert condstore_enabled(state) is state
    assert state.deselected().condstore


# --- search keys -----------------------------------------------------------------------------------------


def verdict(key: ast.SearchKey, number: int, *, columns: Columns | None = None, charset: str = "UTF-8") -> bool | None:
    context = SearchContext(exists=3, last_uid=9, saved_uids=(5,), charset=charset, now=1_000_000.0)
    return compile_key(key, context)(MessageFacts(view(), number, columns))


SEEN = ast.SearchFlag("\\Seen", present=True)
LARGE = ast.SearchSize(ast.SizeOp.LARGER, 100)
TEXT = ast.SearchText(b"needle")


def test_a_cheap_false_key_avoids_the_expensive_key() -> None:
    assert verdict(ast.SearchAnd((TEXT, SEEN)), 2) is False
    assert verdict(ast.SearchAnd((TEXT, SEEN)), 1) is None
    assert verdict(ast.SearchOr(TEXT, SEEN), 1) is True
    assert verdict(ast.SearchOr(TEXT, SEEN), 2) is None
    assert verdict(ast.SearchNot(TEXT), 1) is None
    assert verdict(ast.SearchNot(ast.SearchAnd((TEXT, SEEN))), 2) is True


@given(st.recursive(
    st.sampled_from(("seen", "large", "text")),
    lambda inner: st.tuples(st.just("not"), inner) | st.tuples(st.sampled_from(("and", "or")), inner, inner),
    max_leaves=8,
))  # fmt: skip
def test_early_verdicts_are_right(tree: object) -> None:
    """More facts never contradict a verdict of the three-valued logic."""
    for seen in (1, 2):
        for large in (True, False):
            early = verdict(_key(tree), seen)
            later = verdict(_key(tree), seen, columns=Columns(200 if large else 50, 0, 0))
            for found in (True, False):
                truth = _truth(tree, {"seen": seen == 1, "large": large, "text": found})
                assert later in (None, truth) or later is None
                assert early in (None, truth)


def _key(tree: object) -> ast.SearchKey:
    if isinstance(tree, str):
        leaves: dict[str, ast.SearchKey] = {"seen": SEEN, "large": LARGE, "text": TEXT}
        return leaves[tree]
    assert isinstance(tree, tuple)
    match tree:
        case ("not", inner):
            return ast.SearchNot(_key(inner))
        case ("and", left, right):
            return ast.SearchAnd((_key(left), _key(right)))
        case (_, left, right):
            return ast.SearchOr(_key(left), _key(right))
    raise AssertionError(tree)


def _truth(tree: object, leaves: dict[str, bool]) -> bool:
    if isinstance(tree, str):
        return leaves[tree]
    assert isinstance(tree, tuple)
    match tree:
        case ("not", inner):
            return not _truth(inner, leaves)
        case ("and", left, right):
            return _truth(left, leaves) and _truth(right, leaves)
        case (_, left, right):
            return _truth(left, leaves) or _truth(right, leaves)
    raise AssertionError(tree)


def test_sets_in_searches() -> None:
    def in_set(*ranges: tuple[int | None, int | None]) -> SequenceSet:
        return SequenceSet(tuple(SeqRange(low, high) for low, high in ranges))

    assert [verdict(ast.SearchSequence(in_set((2, None))), n) for n in (1, 2, 3)] == [False, True, True]
    assert [verdict(ast.SearchUid(in_set((1, 4), (9, 9))), n) for n in (1, 2, 3)] == [True, False, True]
    assert [verdict(ast.SearchUid(SequenceSet((), saved=True)), n) for n in (1, 2, 3)] == [False, True, False]


def test_dates_are_days_in_utc() -> None:
    day = datetime.date(2026, 3, 1)
    at = int(datetime.datetime(2026, 3, 1, 23, 59, 59, tzinfo=datetime.UTC).timestamp())
    for op, before, on, after in (
        (ast.DateOp.BEFORE, True, False, False),
        (ast.DateOp.ON, False, True, False),
        (ast.DateOp.SINCE, False, True, True),
    ):
        key = ast.SearchDate(ast.DateField.INTERNAL, op, day)
        found = [verdict(key, 1, columns=Columns(1, at + shift, 0)) for shift in (-86400, 0, 1)]
        assert found == [before, on, after]


def test_ages_count_from_now() -> None:
    young = ast.SearchAge(ast.AgeOp.YOUNGER, 60)
    old = ast.SearchAge(ast.AgeOp.OLDER, 60)
    for at, is_young in ((1_000_000, True), (999_940, True), (999_939, False)):
        assert verdict(young, 1, columns=Columns(1, at, 0)) is is_young
        assert verdict(old, 1, columns=Columns(1, at, 0)) is not is_young


def test_charsets() -> None:
    with pytest.raises(UnknownCharset):
        verdict(TEXT, 1, charset="X-NONE")
    with pytest.raises(BadSearchText):
        verdict(ast.SearchText(b"\xff"), 1, charset="UTF-8")
    assert verdict(ast.SearchText(b"\xe4"), 1, charset="ISO-8859-1") is None


def test_mod_seq_is_found_at_any_depth() -> None:
    deep = ast.SearchNot(ast.SearchOr(SEEN, ast.SearchAnd((TEXT, ast.SearchModSeq(5)))))
    assert uses_mod_seq(deep)
    assert not uses_mod_seq(ast.SearchAnd((SEEN, TEXT)))
    assert [verdict(ast.SearchModSeq(11), number) for number in (1, 2, 3)] == [False, True, True]


# --- settings --------------------------------------------------------------------------------------------


def test_all_faults_of_the_settings_are_reported() -> None:
    with pytest.raises(SettingsError) as caught:
        load(ImapSettings, {"PAQUEBOT_IMAPS_LISTEN": "127.0.0.1:1"})
    assert "PAQUEBOT_TLS_CERTIFICATE" in str(caught.value)
    with pytest.raises(SettingsError):
        load(ImapSettings, {"PAQUEBOT_IMAP_LISTEN": "", "PAQUEBOT_IMAPS_LISTEN": ""})
    assert load(ImapSettings, {"PAQUEBOT_IMAPS_LISTEN": ""}).listen.imaps == ()
