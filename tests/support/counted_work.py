"""The work of a call, as the number of Python instructions that it executes. No clock is involved.

The work of C code inside one instruction is not counted; the parsers slice and search within bounds, or forward only.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from paquebot.wire.cursor import GrammarError
from paquebot.wire.imap import BadSyntax, MailboxNameError

_MOST = 2.3
"""The maximum ratio of work for twice the input: 2, and what a growing list or a logarithm adds."""


_REFUSALS = (ValueError, GrammarError, BadSyntax, MailboxNameError)
"""The parsers' refusals; a RecursionError is not one of them."""


def instructions(call: Callable[[], object]) -> int:
    """Count the instructions of `call`, which may refuse its input with an exception of the parser."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with contextlib.suppress(*_REFUSALS):
            call()
    finally:
        sys.settrace(before)
    return count


def assert_linear(make: Callable[[int], Callable[[], object]], size: int) -> None:
    """`make(n)` gives a call on an input of n units: twice the units are at most 2.3 times the work."""
    instructions(make(8))  # compiled patterns and other things made once are not counted
    once, twice = instructions(make(size)), instructions(make(2 * size))
    assert twice <= _MOST * once, f"{once} instructions for {size} units, {twice} for {2 * size}"
