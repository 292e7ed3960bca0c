"""Run a program, wait for a fact: each with a deadline, each failure with all that is known."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class CommandError(AssertionError):
    """A program failed; the text has its command line and both outputs."""


def run(
    command: Sequence[object], *, seconds: float = 120.0, stdin: str | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run `command`. Raises CommandError when it fails (unless `check` is false) or takes longer than `seconds`."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as late:
        raise CommandError(
            f"{' '.join(words)}: not done after {seconds:.0f} s\n{late.stdout!r}\n{late.stderr!r}"
        ) from None
    if check and done.returncode:
        raise CommandError(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def until(what: str, look: Callable[[], T], seconds: float, every: float = 1.0) -> T:
    """What `look` returns once it is true. Raises AssertionError with its last answer after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = look()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not after {seconds:.0f} s; last seen: {answer!r}")
        time.sleep(every)
