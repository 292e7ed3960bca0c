"""The time of a full synchronisation as the mailbox grows, on each side, and its plot."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.bench import imap_mail
from tests.bench.imap_accounts import empty_inbox
from tests.bench.imap_client import Login, log_in
from tests.bench.imap_measures import logins
from tests.bench.imap_sync import Mailbox, Step, Synchronised
from tests.bench.rows import Side

SIZES = (100, 1_000, 10_000, 100_000)
_ACCOUNT = 20
_AT_ONCE = 50
"""Messages of one APPEND (RFC 3502): 100,000 of them one by one would take longer than everything else."""
_UPLOADS = 4

Growth = Mapping[int, Synchronised]
"""By the size of the mailbox."""


async def grow(side: Side, sizes: Sequence[int]) -> Growth:
    """One mailbox, synchronised each time that it has reached the next of the ascending sizes. Raises ServerFault."""
    (login,) = logins(side, [_ACCOUNT])
    client = await log_in(login)
    await empty_inbox(client)
    client.close()
    found: dict[int, Synchronised] = {}
    names: list[str] = []
    for size in sizes:
        new = [f"growth-{number}" for number in range(len(names), size)]
        await append(login, new)
        names += new
        found[size] = await Mailbox(login, names).synchronise()
    return found


async def append(login: Login, names: Sequence[str]) -> None:
    """The messages of those names, over several connections. Raises ServerFault."""
    turns = iter([names[at : at + _AT_ONCE] for at in range(0, len(names), _AT_ONCE)])
    async with asyncio.TaskGroup() as group:
        for _ in range(_UPLOADS):
            group.create_task(_upload(login, turns))


async def _upload(login: Login, turns: Iterator[Sequence[str]]) -> None:
    client = await log_in(login)
    try:
        for names in turns:
            *first, last = map(imap_mail.message, names)
            line = b"APPEND INBOX" + b"".join(b" {%d+}\r\n%s" % (len(message), message) for message in first)
            await client.ask(line, last)
    finally:
        client.close()


def plot(path: Path, growths: Mapping[str, Growth]) -> str:
    """Write the plot of the sides' growths, one picture for each step; what was written, or why nothing was."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        return "no plot: matplotlib is not installed"
    figure, axes = plt.subplots(1, len(Step), figsize=(16, 4), sharex=True)
    for axis, step in zip(axes, Step, strict=True):
        for name, growth in growths.items():
            axis.plot(list(growth), [found.seconds[step] for found in growth.values()], marker="o", label=name)
        axis.set(xscale="log", yscale="log", title=step.value, xlabel="messages in the mailbox")
        axis.grid(visible=True, alpha=0.3)
    axes[0].set_ylabel("seconds")
    axes[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    return f"{path} written"
