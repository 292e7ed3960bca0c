"""What looks through many bytes does so beside the event loop."""

import threading

from paquebot.smtp_ingress.aside import LONG, aside


async def test_many_bytes_are_looked_through_in_a_thread() -> None:
    here = threading.get_ident()
    assert await aside(LONG - 1, threading.get_ident) == here
    assert await aside(LONG, threading.get_ident) != here
