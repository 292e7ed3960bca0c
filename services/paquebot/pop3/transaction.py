"""Commands of the TRANSACTION state (RFC 1939 §5, §7)."""

from collections.abc import Callable
from itertools import islice

from paquebot.pop3 import capabilities, metrics, update
from paquebot.pop3.context import ServerContext
from paquebot.pop3.maildrop import OpenMaildrop
from paquebot.pop3.reply import Reply, Stream, fault, positive
from paquebot.pop3.states import TransactionState
from paquebot.wire import pop3

_LINES = 1000  # of a listing that are made at once


async def answer(context: ServerContext, state: TransactionState, command: pop3.Command) -> Reply | Stream:
    """The commands that RFC 1939 §5, §7 and RFC 2449 §5 allow in this state."""
    maildrop = state.maildrop
    match command:
        case pop3.Stat():
            return positive(f"{len(maildrop)} {maildrop.total_size}")
        case pop3.List(number):
            return _listing(maildrop, number, maildrop.size, f"{len(maildrop)} messages ({maildrop.total_size} octets)")
        case pop3.Uidl(number):
            return _listing(maildrop, number, maildrop.unique_id, "Unique ids follow")
        case pop3.Retr(number):
            return _retrieve(state, number)
        case pop3.Top(number, lines):
            return _top(state, number, lines)
        case pop3.Dele(number):
            maildrop.delete(number)
            return positive(f"Message {number} is deleted at QUIT")
        case pop3.Rset():
            maildrop.reset()
            return positive(f"{len(maildrop)} messages ({maildrop.total_size} octets)")
        case pop3.Noop():
            return positive()
        case pop3.Capa():
            return capabilities.after_login()
        case pop3.Quit():
            return await update.apply(context, state)
        case pop3.NotOffered(keyword):
            return fault(f"{keyword} is not offered")
        case pop3.Unknown():
            return fault("Unknown command")
        case _:
            return fault("Not after login")


def _listing(maildrop: OpenMaildrop, number: int | None, value: Callable[[int], object], text: str) -> Reply | Stream:
    """RFC 1939 §5 (LIST), §7 (UIDL): one line of scan or unique-id listing, or all."""
    if number is None:
        return _all_lines(maildrop, value, text)
    maildrop.check(number)
    return positive(f"{number} {value(number)}")


async def _all_lines(maildrop: OpenMaildrop, value: Callable[[int], object], text: str) -> Stream:
    yield pop3.ok(text)
    numbers = maildrop.numbers()
    while lines := "".join(f"{number} {value(number)}\r\n" for number in islice(numbers, _LINES)):
        yield lines.encode("ascii")
    yield pop3.END


async def _retrieve(state: TransactionState, number: int) -> Stream:
    """RFC 1939 §5 (RETR)"""
    message = await state.prefetch.begin(number)
    try:
        yield pop3.ok(f"{state.maildrop.size(number)} octets")
        for part in (message.prefix, message.content):
            for piece in pop3.stuffed(part):
                yield piece
        yield pop3.END
        state.maildrop.mark_retrieved(number)
        metrics.RETRIEVED.observe(state.maildrop.size(number))
    finally:
        state.prefetch.finish(number)


async def _top(state: TransactionState, number: int, lines: int) -> Stream:
    """RFC 1939 §7 (TOP): the prefix is the beginning of the header."""
    message = await state.prefetch.begin(number)
    try:
        yield pop3.ok("Top of the message follows")
        for piece in pop3.stuffed(message.prefix):
            yield piece
        for piece in pop3.stuffed(message.content, end=pop3.top_of(message.content, lines)):
            yield piece
        yield pop3.END
    finally:
        state.prefetch.finish(number)
