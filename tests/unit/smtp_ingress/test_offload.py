"""Work on many bytes runs in a thread, beside the event loop."""

import threading

from paquebot.smtp_ingress.offload import OFFLOAD_SIZE, offload


async def test_work_on_many_bytes_runs_in_a_thread() -> None:
    here = threading.get_ident()
    assert await offload(OFFLOAD_SIZE - 1, threading.get_ident) == here
    assert await offload(OFFLOAD_SIZE, threading.get_ident) != here
