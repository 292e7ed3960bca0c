"""Wait for what other pods bring: try again, say why it takes so long, and give up with the last reason."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

import typer

from paquebot.runtime.settings import parse_seconds, show_seconds

T = TypeVar("T")

_PAUSE_SECONDS = 0.5
_SAY_AGAIN_SECONDS = 30.0
_REFUSAL_SECONDS = 10.0  # logins are made while we wait, so a refusal must last before it is believed


class TemporaryFailure(Exception):
    """It cannot be done now but may be later; the text says what is missing."""


class TemporaryRefusal(TemporaryFailure):
    """It answers and says no, which waiting mends only when a login is just being made."""


class CommandFailed(Exception):
    """It cannot be done; one sentence for a person."""


def parse_duration(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


WaitOption = Annotated[
    float,
    typer.Option(
        "--wait", parser=parse_duration, metavar="TIME", help="How long to wait for what does not answer yet."
    ),
]


@dataclass(frozen=True, slots=True)
class RetryUntil:
    """`seconds`: the longest wait; `say` gets a line when the reason changes, and now and then."""

    seconds: float
    say: Callable[[str], None]

    async def until_done(self, what: str, work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work`, tried again while it raises TemporaryFailure. Raises CommandFailed."""
        begin = time.monotonic()
        spoken, told_at, refused_since = "", begin, 0.0
        while True:
            try:
                return await work()
            except TemporaryFailure as fault:
                reason, now = str(fault), time.monotonic()
                refused_since = (refused_since or now) if isinstance(fault, TemporaryRefusal) else 0.0
                if refused_since and now - refused_since >= min(_REFUSAL_SECONDS, self.seconds):
                    raise CommandFailed(f"{what}: {reason}") from fault
                if now - begin >= self.seconds:
                    raise CommandFailed(f"{what}: not within {show_seconds(self.seconds)}: {reason}") from fault
            if reason != spoken or now - told_at >= _SAY_AGAIN_SECONDS:
                self.say(f"waiting for {what} ({now - begin:.0f} s): {reason}")
                spoken, told_at = reason, now
            await asyncio.sleep(_PAUSE_SECONDS)
