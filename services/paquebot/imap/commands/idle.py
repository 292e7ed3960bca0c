"""IDLE (RFC 2177): until DONE, the session reports what other sessions do to the selected mailbox.

A hint wakes it at once; without one it polls every PAQUEBOT_IMAP_POLL seconds, because a hint may be lost.
"""

import asyncio
import random

from paquebot.imap import metrics
from paquebot.imap.command_reader import EndRequested
from paquebot.imap.commands.context import CommandContext
from paquebot.imap.connection import Inactive, TruncatedLine
from paquebot.imap.mailbox_view import updates
from paquebot.imap.mailbox_view.feed import end_spans
from paquebot.imap.reply import Reply, Stream, bad, in_chunks, ok
from paquebot.imap.states import LoggedIn, Selected
from paquebot.runtime.net.connection import PeerGone
from paquebot.runtime.postgres.pool import PostgresUnavailable
from paquebot.wire.imap import BadSyntax, ast, parse_done, responses
from paquebot.wire.imap.grammar.tokens import tag_of

_MAX_LINE = 8192


async def idle(context: CommandContext, state: LoggedIn, command: ast.Idle) -> Stream:
    """RFC 2177 §3"""
    return _idling(context, state)


async def _idling(context: CommandContext, state: LoggedIn) -> Stream:
    with metrics.IDLING.track_inprogress():
        yield responses.continuation("idling")
        if isinstance(state, Selected):
            for piece in in_chunks(updates.expunge_lines(state)):
                yield piece
            if context.watch is not None:
                context.watch.dirty = True  # report what happened before IDLE too
        loop = asyncio.get_running_loop()
        ends = loop.time() + context.reader.inactivity_timeout
        next_poll = _time_of_next_poll(context) if isinstance(state, Selected) else ends
        while (line := _take_line(context)) is None:
            if isinstance(state, Selected) and ((hinted := _hinted(context, state)) or loop.time() >= next_poll):
                next_poll = _time_of_next_poll(context)
                spans = context.watch.take_spans() if context.watch is not None else []
                lines = await _refresh(context, state, now=not hinted)
                for piece in in_chunks(updates.with_expunge_lines(lines, state)):
                    yield piece
                end_spans(spans, arrived=lines.arrived)  # control is back here when the session has sent the lines
                continue
            if loop.time() >= ends:
                raise Inactive
            await _wait(context, min(ends, next_poll) - loop.time())
    yield _end(context, line)


async def _refresh(context: CommandContext, state: Selected, *, now: bool) -> updates.UpdateLines:
    assert context.watch is not None
    try:
        return await updates.refresh(context.server, context.watch, state, now=now, shared=True)
    except PostgresUnavailable:  # the next poll tries again
        context.watch.dirty = False
        return updates.UpdateLines()


async def _wait(context: CommandContext, seconds: float) -> None:
    if context.connection.ended:
        raise PeerGone
    if context.reader.end_requested:
        raise EndRequested
    try:
        await context.connection.wait(max(0.0, seconds))
    except Inactive:  # the poll or the end is due: the caller checks the clock
        return


def _hinted(context: CommandContext, state: Selected) -> bool:
    return context.watch is not None and updates.has_changes(context.watch, state)


def _time_of_next_poll(context: CommandContext) -> float:
    """Spread at random, so that sessions that began together do not poll together for ever."""
    seconds = context.server.settings.session.poll * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
    return asyncio.get_running_loop().time() + seconds


def _take_line(context: CommandContext) -> bytes | None:
    """The line that ends IDLE; b"": a long line, which stays in the buffer. It may be a command with literals, so the
    command reader must read all of it."""
    if context.connection.is_longer(_MAX_LINE):
        return b""
    line = context.connection.take_line(_MAX_LINE)
    assert not isinstance(line, TruncatedLine)
    return line


def _end(context: CommandContext, line: bytes) -> Reply:
    """Some clients send the next command without DONE, and wait for its answer: it ends IDLE and is run."""
    try:
        parse_done(line)
    except BadSyntax as fault:
        if tag_of(line) is not None:
            context.connection.put_back(line)
        elif line:
            context.connection.record_command(line, first=True)
        return bad(fault.message)
    context.connection.record_command(line, first=True)
    return ok("IDLE completed")
