"""When to try again, when to warn the sender, when to give up: RFC 5321 §4.5.4.1.

Times are Unix seconds. A wait is made a little longer at random, so that a thousand messages that failed together
do not come back together. The warning and the end of the lifetime have attempts of their own.
"""

from collections.abc import Callable

from paquebot.relay.settings import RetrySettings
from paquebot.v1.queue_pb2 import RelayJob

Random = Callable[[], float]
"""From 0 to 1."""


class RetrySchedule:
    """`random`: from 0 to 1."""

    def __init__(self, settings: RetrySettings, random: Random) -> None:
        self._settings = settings
        self._random = random

    def expires(self, job: RelayJob) -> float:
        """The end of the job's lifetime, which is shorter for a notification."""
        lifetime = self._settings.lifetime if job.reverse_path else self._settings.bounce_lifetime
        return accepted_at(job) + lifetime

    def next_attempt(self, job: RelayJob, now: float, *, not_before: float = 0.0) -> float | None:
        """After a failed attempt that ended `now`; `not_before`: the end of the destination's rest. None: give up."""
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
        """A warning of the delay is due to the sender, and was not sent yet."""
        warn = self._warn_at(job)
        return warn is not None and now >= warn

    def _warn_at(self, job: RelayJob) -> float | None:
        if job.delay_reported or not job.reverse_path or not self._settings.warn_after:
            return None
        return accepted_at(job) + self._settings.warn_after


def accepted_at(job: RelayJob) -> float:
    return job.accepted_at_ms / 1000
