"""Fuzzes the POP3 grammar: lines to commands, and any bytes through line ends, dot-stuffing and TOP."""

from __future__ import annotations

import re

from paquebot.wire.cursor import GrammarError
from paquebot.wire.pop3 import parse_command, stuffed, top_of
from tests.fuzz.target import Target

_WORDS = (b"\r\n", b"\n", b"\r", b".", b"..", b" ", b"\0", b"\xff", b"=", b"-", b"99999999999999999999999", b"LIST 1",
          b"TOP 1 2", b"AUTH PLAIN ", b"USER ", b"PASS ", b"\r\n.\r\n", b"\n.\n")  # fmt: skip


def check(raw: bytes) -> None:
    """A line is a command or a fault with its place; a stuffed message ends where its sender says, and nowhere else."""
    for line in raw.split(b"\n"):
        try:
            parse_command(line)
        except GrammarError as fault:
            assert 0 <= fault.position <= len(line)  # noqa: PT017
            assert str(fault).isascii()  # noqa: PT017
    message = re.sub(rb"(?<!\r)\n", b"\r\n", raw)
    for piece in (2, 7, 65536):
        out = b"".join(stuffed(raw, piece=piece))
        assert not any(line in (b".", b".\r") for line in out.split(b"\n"))
        restored = b"\r\n".join(line.removeprefix(b".") for line in out.split(b"\r\n"))
        assert restored in (message, message + b"\r\n")
    for lines in (0, 1, 5, 2**32):
        end = top_of(raw, lines)
        assert 0 <= end <= len(raw)


TARGET = Target("pop3", check, _WORDS)
