"""When to try again, when to warn, when to give up: RFC 5321 §4.5.4.1.

Times are Unix seconds. A wait is made a little longer by chance, so that a thousand messages that failed together
do not come back together. The moments of warning and of giving up are attempts of their own.
"""

from collections.abc import Callable

from paquebot.relay.settings import RetrySettings
from paquebot.v1.queue_pb2 import RelayJob

Random = Callable[[], float]
"""From 0 to 1."""


class RetrySchedule:
    """`random` is the source of chance."""

    def __init__(self, settings: RetrySettings, random: Random) -> None:
        self._settings = settings
        self._random = random

    def expires(self, job: RelayJob) -> float:
        """Then it is given up: sooner for a notification, which nobody waits for."""
        lifetime = self._settings.lifetime if job.reverse_path else self._settings.bounce_lifetime
        return accepted_at(job) + lifetime

    def next_attempt(self, job: RelayJob, now: float, *, not_before: float = 0.0) -> float | None:
        """After a failed attempt that ended `now`; `not_before` while the destination rests. None: give up."""
        expires = self.expires(job)
        if now >= expires:
            return None
        delays = self._settings.delays
        wait = delays[min(job.attempt, len(delays) - 1)]
        at = max(now + wait, not_before)
        at += wait * self._settings.jitter * self._random()
        warn = self._warn_at(job)
        if warn is not None and now < warn < at:
            at = max(warn, not_before)
        return min(at, expires)

    def warns(self, job: RelayJob, now: float) -> bool:
        """The sender has waited long enough to be told, and was not told yet."""
        warn = self._warn_at(job)
        return warn is not None and now >= warn

    def _warn_at(self, job: RelayJob) -> float | None:
        if job.delay_reported or not job.reverse_path or not self._settings.warn_after:
            return None
        return accepted_at(job) + self._settings.warn_after


def accepted_at(job: RelayJob) -> float:
    return job.accepted_at_ms / 1000
