"""What looks through many bytes does so beside the event loop."""

import threading

from paquebot.smtp_ingress.offload import LONG, offload


async def test_many_bytes_are_looked_through_in_a_thread() -> None:
    here = threading.get_ident()
    assert await offload(LONG - 1, threading.get_ident) == here
    assert await offload(LONG, threading.get_ident) != here
