"""Free TCP ports on loopback for servers under test."""

from __future__ import annotations

import itertools
import random
import socket

# Below the kernel's usual range for outgoing connections (32768 and up), so that no connection takes one meanwhile.
_FIRST, _COUNT = 20_000, 12_000
# Another start for each process, so that two test sessions at once seldom meet.
_candidates = itertools.islice(itertools.cycle(range(_COUNT)), random.SystemRandom().randrange(_COUNT), None)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on; no port twice in 12,000 calls."""
    for candidate in itertools.islice(_candidates, _COUNT):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", _FIRST + candidate))
            except OSError:
                continue
            return _FIRST + candidate
    raise RuntimeError("no free port on loopback")
