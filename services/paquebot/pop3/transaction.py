"""Commands of the TRANSACTION state (RFC 1939 §5, §7)."""

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from paquebot.pop3 import metrics, update
from paquebot.pop3.maildrop import OpenMaildrop
from paquebot.pop3.reply import Reply, Stream, fault, positive
from paquebot.pop3.states import TransactionState
from paquebot.wire import pop3

if TYPE_CHECKING:
    from paquebot.pop3.session import Session

_LINES = 1000  # of a listing that are made at once


async def answer(session: "Session", state: TransactionState, command: pop3.Command) -> Reply | Stream:
    """The commands that RFC 1939 §5, §7 and RFC 2449 §5 allow in this state."""
    drop = state.drop
    match command:
        case pop3.Stat():
            return positive(f"{len(drop)} {drop.octets}")
        case pop3.List(number):
            return _listing(drop, number, drop.size, f"{len(drop)} messages ({drop.octets} octets)")
        case pop3.Uidl(number):
            return _listing(drop, number, drop.unique_id, "Unique ids follow")
        case pop3.Retr(number):
            return _retrieve(state, number)
        case pop3.Top(number, lines):
            return _top(state, number, lines)
        case pop3.Dele(number):
            drop.delete(number)
            return positive(f"Message {number} is deleted at QUIT")
        case pop3.Rset():
            drop.reset()
            return positive(f"{len(drop)} messages ({drop.octets} octets)")
        case pop3.Noop():
            return positive()
        case pop3.Capa():
            return session.capabilities()
        case pop3.Quit():
            return await update.apply(session, state)
        case pop3.NotOffered(keyword):
            return fault(f"{keyword} is not offered")
        case pop3.Unknown():
            return fault("Unknown command")
        case _:
            return fault("Not after login")


def _listing(drop: OpenMaildrop, number: int | None, value: Callable[[int], object], text: str) -> Reply | Stream:
    """RFC 1939 §5 (LIST), §7 (UIDL): one line of scan or unique-id listing, or all."""
    if number is None:
        return _all_lines(drop, value, text)
    drop.check(number)
    return positive(f"{number} {value(number)}")


async def _all_lines(drop: OpenMaildrop, value: Callable[[int], object], text: str) -> Stream:
    yield pop3.ok(text)
    numbers = drop.numbers()
    while lines := "".join(f"{number} {value(number)}\r\n" for number in islice(numbers, _LINES)):
        yield lines.encode("ascii")
    yield pop3.END


async def _retrieve(state: TransactionState, number: int) -> Stream:
    """RFC 1939 §5 (RETR)"""
    message = await state.reading.begin(number)
    try:
        yield pop3.ok(f"{state.drop.size(number)} octets")
        for part in (message.prefix, message.raw):
            for piece in pop3.stuffed(part):
                yield piece
        yield pop3.END
        state.drop.retrieved(number)
        metrics.RETRIEVED.observe(state.drop.size(number))
    finally:
        state.reading.finish(number)


async def _top(state: TransactionState, number: int, lines: int) -> Stream:
    """RFC 1939 §7 (TOP): the prefix is the beginning of the header."""
    message = await state.reading.begin(number)
    try:
        raw = message.raw
        yield pop3.ok("Top of the message follows")
        for piece in pop3.stuffed(message.prefix):
            yield piece
        for piece in pop3.stuffed(raw, end=pop3.top_of(raw, lines)):
            yield piece
        yield pop3.END
    finally:
        state.reading.finish(number)
