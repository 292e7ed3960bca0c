"""How much work a call is: the instructions of Python that it executes, counted, so that no clock has a say.

What C code does inside one instruction is not seen; the parsers slice and search within bounds, or forward only.
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
"""Twice the input may be so many times the work: twice, and what a growing list or a logarithm adds."""


_REFUSALS = (ValueError, GrammarError, BadSyntax, MailboxNameError)
"""Of the parsers; a RecursionError is none."""


def instructions(call: Callable[[], object]) -> int:
    """Executed by `call`, which may refuse its input: every refusal of a parser is an Exception of its own."""
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
    instructions(make(8))  # what is made once, such as compiled patterns, is not counted
    once, twice = instructions(make(size)), instructions(make(2 * size))
    assert twice <= _MOST * once, f"{once} instructions for {size} units, {twice} for {2 * size}"
