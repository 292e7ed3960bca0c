"""Work on the bytes of a message, beside the event loop where there are many."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")
LONG: Final = 256 * 1024
"""Bytes from which a message, or its header, is looked through in a thread."""


async def offload(octets: int, work: Callable[[], T]) -> T:
    """The result of `work`, which looks through so many bytes. Raises what it raises."""
    return await asyncio.to_thread(work) if octets >= LONG else work()
