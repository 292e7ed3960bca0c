"""A clock that only the test advances."""

from __future__ import annotations


class ManualClock:
    """Called like `time.monotonic`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
