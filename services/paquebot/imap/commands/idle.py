"""IDLE (RFC 2177): the session waits for DONE, and tells what others do to the selected mailbox as it happens.

A hint wakes it at once; without one it looks every PAQUEBOT_IMAP_POLL seconds, for a hint may be lost.
"""

import asyncio
import random
from typing import TYPE_CHECKING

from paquebot.imap import metrics
from paquebot.imap.command_reader import EndRequested
from paquebot.imap.connection import Inactive, LineTooLong
from paquebot.imap.mailbox_view import updates
from paquebot.imap.mailbox_view.feed import end_spans
from paquebot.imap.reply import Reply, Stream, bad, in_chunks, ok
from paquebot.imap.states import LoggedIn, Selected
from paquebot.runtime.net.connection import PeerGone
from paquebot.runtime.postgres.pool import PostgresUnavailable
from paquebot.wire.imap import BadSyntax, ast, parse_done, responses
from paquebot.wire.imap.grammar.tokens import tag_of

if TYPE_CHECKING:
    from paquebot.imap.session import Session

_MAX_LINE = 8192


async def idle(session: "Session", state: LoggedIn, command: ast.Idle) -> Stream:
    """RFC 2177 §3"""
    return _idling(session, state)


async def _idling(session: "Session", state: LoggedIn) -> Stream:
    with metrics.IDLING.track_inprogress():
        yield responses.continuation("idling")
        if isinstance(state, Selected):
            for piece in in_chunks(updates.expunge_lines(state)):
                yield piece
            _remember(session)  # what happened before IDLE is news too
        loop = asyncio.get_running_loop()
        ends = loop.time() + session.reader.inactivity_timeout
        looks = _next_poll(session) if isinstance(state, Selected) else ends
        while (line := _line(session)) is None:
            if isinstance(state, Selected) and ((hinted := _hinted(session, state)) or loop.time() >= looks):
                looks = _next_poll(session)
                spans = session.watch.take_spans() if session.watch is not None else []
                news = await _news(session, state, now=not hinted)
                for piece in in_chunks(updates.with_expunge_lines(news, state)):
                    yield piece
                end_spans(spans, arrived=news.arrived)  # it goes on here when the client's socket has it
                continue
            if loop.time() >= ends:
                raise Inactive
            await _wait(session, min(ends, looks) - loop.time())
    yield _ended(session, line)


async def _news(session: "Session", state: Selected, *, now: bool) -> updates.UpdateLines:
    assert session.watch is not None
    try:
        return await updates.refresh(session.process, session.watch, state, now=now, shared=True)
    except PostgresUnavailable:  # said again at the next poll
        session.watch.dirty = False
        return updates.UpdateLines()


async def _wait(session: "Session", seconds: float) -> None:
    if session.connection.ended:
        raise PeerGone
    if session.reader.end_requested:
        raise EndRequested
    try:
        await session.connection.wait(max(0.0, seconds))
    except Inactive:  # the poll is due, or the end: the caller looks at the clock
        return


def _hinted(session: "Session", state: Selected) -> bool:
    return session.watch is not None and updates.has_changes(session.watch, state)


def _remember(session: "Session") -> None:
    if session.watch is not None:
        session.watch.dirty = True


def _next_poll(session: "Session") -> float:
    """Sessions that began together must not ask together for ever."""
    seconds = session.process.settings.session.poll * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
    return asyncio.get_running_loop().time() + seconds


def _line(session: "Session") -> bytes | None:
    """What ends IDLE; b"": a long line, which is not taken. It may be a command, and literals may belong to it: whoever
    reads commands reads it, or none of it."""
    if session.connection.is_longer(_MAX_LINE):
        return b""
    line = session.connection.take_line(_MAX_LINE)
    assert not isinstance(line, LineTooLong)
    return line


def _ended(session: "Session", line: bytes) -> Reply:
    """Some clients forget that they idle, and wait for the answer to what they say: a command ends IDLE and is read."""
    try:
        parse_done(line)
    except BadSyntax as fault:
        if tag_of(line) is not None:
            session.connection.put_back(line)
        elif line:
            session.connection.heard(line, first=True)
        return bad(fault.message)
    session.connection.heard(line, first=True)
    return ok("IDLE completed")
