"""Commands of hundreds of kilobytes are parsed in a thread, one at a time, so that they do not hold up the event
loop."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from paquebot.runtime.shares.event_loop import charge

T = TypeVar("T")

MEMORY_PER_BYTE = 8
"""Bytes of memory for each byte of a long command, about: it becomes numbers, keys and the like."""

_thread = ThreadPoolExecutor(1, thread_name_prefix="long_commands")


async def run_in_thread(work: Callable[[], T]) -> T:
    """Run `work` in the thread, and charge its time to the session. Raises what it raises."""
    used = 0.0

    def timed() -> T:
        nonlocal used
        began = time.thread_time()
        try:
            return work()
        finally:
            used = time.thread_time() - began

    try:
        return await asyncio.get_running_loop().run_in_executor(_thread, timed)
    finally:
        charge(used)
