"""What every command of the benchmark does: reports its progress, and exits cleanly on a signal."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DOMAIN = "paquebot.test"
BUILD = Path(__file__).parents[2] / "build"
_START = time.monotonic()


def say(text: str) -> None:
    """A line of progress, with the seconds since the start."""
    print(f"{time.monotonic() - _START:6.0f} s  {text}", file=sys.stderr, flush=True)


def run_to_end(work: Coroutine[Any, Any, int]) -> int:
    """The exit code of `work`. SIGTERM does what Ctrl-C does: the servers end and their files go."""

    async def run() -> int:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(run())
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


@contextmanager
def open_directory(parent: Path | None = None) -> Iterator[Path]:
    """A new directory that every account may enter, since Postfix and Dovecot change to accounts of their own."""
    with tempfile.TemporaryDirectory(prefix="bench.", dir=parent, ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory
