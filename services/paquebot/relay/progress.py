"""The progress of an attempt, and whether it may be cancelled now."""

import asyncio

from paquebot.relay.outcome import Outcomes


class AttemptProgress:
    """In doubt: a host may have taken the message, and that is not recorded yet (RFC 1047). Until the doubt is over the
    attempt has no timeout but those of the message itself."""

    def __init__(self) -> None:
        self.in_doubt = False
        self.outcomes: Outcomes = {}
        self.unrecorded: Outcomes = {}
        """Delivered, and not recorded in PostgreSQL yet."""
        self._timeout: asyncio.Timeout | None = None
        self._until = 0.0

    def limit_to(self, seconds: float) -> asyncio.Timeout:
        """`async with`: the attempt, which TimeoutError ends after the timeout, or when `cut` is called."""
        self._until = asyncio.get_running_loop().time() + seconds
        self._timeout = asyncio.timeout_at(self._until)
        return self._timeout

    def enter_doubt(self) -> None:
        """The message's first byte is about to leave."""
        self.in_doubt = True
        if self._timeout is not None:
            self._timeout.reschedule(None)

    def leave_doubt(self) -> None:
        """The recipients that a host has accepted are recorded."""
        self.in_doubt = False
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(self._until)

    def cut(self) -> bool:
        """End the attempt now. False: it cannot be ended now."""
        if self.in_doubt or self._timeout is None or self._timeout.when() is None or self._timeout.expired():
            return False
        self._until = asyncio.get_running_loop().time()
        self._timeout.reschedule(self._until)
        return True
