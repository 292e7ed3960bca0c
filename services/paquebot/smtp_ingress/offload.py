"""Work on the bytes of a message, in a thread where there are many of them."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")
OFFLOAD_SIZE: Final = 256 * 1024
"""Bytes from which a message, or its header, is processed in a thread."""


async def offload(size: int, work: Callable[[], T]) -> T:
    """The result of `work`, which processes `size` bytes. Raises what it raises."""
    return await asyncio.to_thread(work) if size >= OFFLOAD_SIZE else work()
