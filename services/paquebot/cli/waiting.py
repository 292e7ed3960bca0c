"""Wait for other pods and engines: try again, print why it takes so long, and fail with the last reason."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

import stamina
import typer

from paquebot.runtime.settings import parse_seconds, show_seconds

T = TypeVar("T")

_PAUSE_SECONDS = 0.5
_REPORT_SECONDS = 30.0
_REFUSAL_SECONDS = 10.0  # logins are created while we wait, so only a refusal that lasts this long is final

# The commands print the reason themselves; by default stamina would log and count each retry as well.
stamina.instrumentation.set_on_retry_hooks([])


class TemporaryFailure(Exception):
    """The operation failed and may succeed later; the text says what is missing."""


class TemporaryRefusal(TemporaryFailure):
    """The other side answered no. Waiting helps only when the login is being created right now."""


class CommandFailed(Exception):
    """The command failed; the text is one sentence for the user."""


def parse_duration(text: str) -> float:
    """The value of an option: `90s`, `10m`. Returns seconds. Raises typer.BadParameter."""
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


WaitOption = Annotated[
    float,
    typer.Option(
        "--wait",
        parser=parse_duration,
        metavar="TIME",
        help="Timeout for engines and services, such as 30s or 10m.",
    ),
]


@dataclass(frozen=True, slots=True)
class RetryUntil:
    """Calls an operation until it succeeds, for `seconds` at most. `report` gets a line when the reason changes, and
    every 30 s."""

    seconds: float
    report: Callable[[str], None]

    async def call(self, what: str, operation: Callable[[], Awaitable[T]]) -> T:
        """The result of `operation`, which is called again while it raises TemporaryFailure. `what` names it in
        messages. Raises CommandFailed, and anything else that `operation` raises."""
        progress = _Progress(what, self, time.monotonic())
        try:
            async for attempt in stamina.retry_context(
                on=TemporaryFailure,
                attempts=None if self.seconds else 1,
                timeout=self.seconds or None,
                wait_initial=_PAUSE_SECONDS,
                wait_max=_PAUSE_SECONDS,
                wait_jitter=0.0,
                wait_exp_base=1,
            ):
                with attempt:
                    try:
                        return await operation()
                    except TemporaryFailure as failure:
                        progress.failed(failure)
                        raise
        except TemporaryFailure as failure:
            raise CommandFailed(f"{what}: not within {show_seconds(self.seconds)}: {failure}") from failure
        raise AssertionError("retry_context ends with a result or an exception")


@dataclass(slots=True)
class _Progress:
    """Reports the failures of one call, and turns a refusal that lasts into CommandFailed."""

    what: str
    retries: RetryUntil
    started: float
    reason: str = ""
    reported: float = 0.0
    refused_since: float | None = None

    def failed(self, failure: TemporaryFailure) -> None:
        now, reason = time.monotonic(), str(failure)
        if not isinstance(failure, TemporaryRefusal):
            self.refused_since = None
        elif self.refused_since is None:
            self.refused_since = now
        if self.refused_since is not None:
            if now - self.refused_since >= min(_REFUSAL_SECONDS, self.retries.seconds):
                raise CommandFailed(f"{self.what}: {reason}") from failure
        if now - self.started < self.retries.seconds and (
            reason != self.reason or now - self.reported >= _REPORT_SECONDS
        ):
            self.retries.report(f"waiting for {self.what} ({now - self.started:.0f} s): {reason}")
            self.reason, self.reported = reason, now
