"""What hostile clients do, each from loopback addresses of its own: slow ones, many, oversize, deep and pointless ones.

An attack runs until it is cancelled. It must not end by itself when it is refused: attackers do not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from tests.attack import insiders, strangers
from tests.attack.field import Victim

_PAUSE = 0.05
_PREPARE_SECONDS = 120.0
Run = Callable[[Victim], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Attack:
    """`clients` of it at once, each `run` again and again; `prepare` once before."""

    name: str
    clients: int
    run: Run
    prepare: Run | None = None


def _smtp(victim: Victim) -> int:
    return victim.ports.smtp


def _imap(victim: Victim) -> int:
    return victim.ports.imap


def _pop3(victim: Victim) -> int:
    return victim.ports.pop3


ATTACKS = (
    Attack("slow lines, SMTP", 400, strangers.slow_line(_smtp, b"EHLO x\r\n")),
    Attack("slow lines, IMAP", 400, strangers.slow_line(_imap, b"a CAPABILITY\r\n")),
    Attack("slow lines, POP3", 400, strangers.slow_line(_pop3, b"CAPA\r\n")),
    Attack("connections without a word", 20, strangers.connects),
    Attack("broken TLS handshakes", 20, strangers.broken_handshake),
    Attack("NOOP without a login, IMAP", 200, strangers.unending_noop(_imap, b"a NOOP\r\n")),
    Attack("CAPA without a login, POP3", 200, strangers.unending_noop(_pop3, b"CAPA\r\n")),
    Attack("pipelined NOOPs", 20, strangers.pipelined_noops),
    Attack("lines without end", 20, strangers.endless_line),
    Attack("660 parameters", 8, strangers.parameters),
    Attack("declared sizes", 40, strangers.declared_size),
    Attack("declared chunks", 40, strangers.declared_chunk),
    Attack("reports to silent hosts", 4, strangers.wanted_reports, strangers.many_wanted_reports),
    Attack("header bombs", 4, strangers.header_bomb),
    Attack("deep MIME", 4, strangers.deep_mime),
    Attack("20,000 slashes", 4, strangers.slashes),
    Attack("100,000 parts", 4, strangers.many_parts),
    Attack("oversize literals", 20, strangers.literal_before_login),
    Attack("deep SEARCH", 20, strangers.deep_search),
    Attack("guessed passwords", 20, strangers.guesses),
    Attack("LIST of 64 patterns", 4, insiders.list_many_patterns, insiders.long_names),
    Attack("505 × NOT BODY", 4, insiders.search_many_times),
    Attack("declared literals", 10, insiders.declared_literal),
    Attack("copies of copies", 2, insiders.copies, insiders.mailbox_to_copy),
    Attack("40 partials of 20 MiB", 4, insiders.many_partials, insiders.mailbox_of_large_messages),
    Attack("a million addresses", 4, insiders.many_addresses, insiders.mailbox_of_many_addresses),
    Attack("200 lists of fields", 4, insiders.many_field_lists, insiders.mailbox_of_many_fields),
    Attack("60 MiB never read", 8, insiders.never_read, insiders.mailbox_of_large_messages),
    Attack("SEARCH BODY of 200 MiB", 4, insiders.search_much, insiders.mailbox_to_search),
)


async def prepared(attack: Attack, victim: Victim) -> None:
    """Once for each victim. Whatever is refused meanwhile is refused to the attacker."""
    if attack.prepare is not None and attack.prepare.__name__ not in victim.prepared:
        victim.prepared.add(attack.prepare.__name__)
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(_PREPARE_SECONDS):
                await attack.prepare(victim)


@contextlib.asynccontextmanager
async def under(attacks: Sequence[Attack], victim: Victim) -> AsyncIterator[list[int]]:
    """The attacks go on for the time of the block; gives the count of their rounds, as a list of one."""
    rounds = [0]

    async def client(attack: Attack) -> None:
        while True:
            with contextlib.suppress(OSError, EOFError, ValueError):  # ValueError: a line longer than we read
                await attack.run(victim)
            rounds[0] += 1
            await asyncio.sleep(_PAUSE)

    clients = [asyncio.create_task(client(attack)) for attack in attacks for _ in range(attack.clients)]
    try:
        yield rounds
    finally:
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
