"""Load by Postfix's `smtp-source`: sessions that are open all the time, messages spread evenly over the accounts.

`smtp-source` sends to one recipient, so each session is a stream of its own that runs one `smtp-source` after the
other, one for each of its accounts. With `keep` a connection carries all messages to one account, else one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.bench.rows import LOOPBACK, Side

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class FloodError(Exception):
    """The client could not send."""


def source_program() -> str | None:
    """Where smtp-source is; None: not installed."""
    return shutil.which("smtp-source", path=f"{os.environ.get('PATH', '')}:{_PATH}")


@dataclass(frozen=True, slots=True)
class Flood:
    """`messages` in all, in the files `letters`, one for each account that gets any."""

    side: Side
    sessions: int
    messages: int
    letters: list[Path]
    keep: bool = False

    @property
    def each(self) -> int:
        """Messages to each account."""
        each, rest = divmod(self.messages, len(self.letters))
        if rest:
            raise ValueError(f"{self.messages} messages cannot be spread evenly over {len(self.letters)} accounts")
        return each

    async def run(self, sent: Callable[[int], None] = lambda account: None) -> float:
        """Send all; the seconds until the last 250. `sent` is called with each account once all its messages have their
        250. Raises FloodError."""
        loop = asyncio.get_running_loop()

        def stream(first: int) -> None:
            for account in range(first, len(self.letters), self.sessions):
                self._send(account)
                loop.call_soon_threadsafe(sent, account)

        streams = min(self.sessions, len(self.letters))
        start = time.perf_counter()
        with ThreadPoolExecutor(streams) as pool:
            await asyncio.gather(*(loop.run_in_executor(pool, stream, first) for first in range(streams)))
            return time.perf_counter() - start

    def _send(self, account: int) -> None:
        wide = max(1, self.sessions // len(self.letters))  # fewer accounts than sessions: several sessions for each
        command = [
            source_program() or "smtp-source",
            *(["-d"] if self.keep else []),
            *("-s", str(min(wide, self.each)), "-m", str(self.each), "-F", str(self.letters[account])),
            *("-f", "sender@example.org", "-t", self.side.address(account)),
            f"{LOOPBACK}:{self.side.smtp_port}",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise FloodError(f"{self.side.name}: smtp-source failed: {done.stderr.strip()}")
