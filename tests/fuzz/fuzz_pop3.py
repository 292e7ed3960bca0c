"""Fuzzes the POP3 grammar: lines to commands, and any octets through line ends, dot-stuffing and TOP.

`python tests/fuzz/fuzz_pop3.py [iterations [seed]]`; with atheris installed it is guided by coverage, without end.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from paquebot.wire.cursor import GrammarError
from paquebot.wire.pop3 import canonical, parse_command, stuffed, top_of

CORPUS = Path(__file__).parent / "pop3"
_WORDS = (b"\r\n", b"\n", b"\r", b".", b"..", b" ", b"\0", b"\xff", b"=", b"-", b"99999999999999999999999", b"LIST 1",
          b"TOP 1 2", b"AUTH PLAIN ", b"USER ", b"PASS ", b"\r\n.\r\n", b"\n.\n")  # fmt: skip


def corpus() -> list[bytes]:
    return [path.read_bytes() for path in sorted(CORPUS.glob("*.pop3"))]


def check(raw: bytes) -> None:
    """A line is a command or a fault with its place; a stuffed message ends where its sender says, and nowhere else."""
    for line in raw.split(b"\n"):
        try:
            parse_command(line)
        except GrammarError as fault:
            assert 0 <= fault.position <= len(line)  # noqa: PT017
            assert str(fault).isascii()  # noqa: PT017
    message = canonical(raw)
    for piece in (2, 7, 65536):
        out = b"".join(stuffed(message, piece=piece))
        assert not any(line in (b".", b".\r") for line in out.split(b"\n"))
        restored = b"\r\n".join(line.removeprefix(b".") for line in out.split(b"\r\n"))
        assert restored in (message, message + b"\r\n")
    for lines in (0, 1, 5, 2**32):
        end = top_of(message, lines)
        assert 0 <= end <= len(message)


def mutations(iterations: int, seed: int) -> Iterator[bytes]:
    """Samples of the corpus, each changed in a few places."""
    source = random.Random(seed)
    samples = corpus()
    for _ in range(iterations):
        raw = bytearray(source.choice(samples))
        for _ in range(source.randint(1, 5)):
            at = source.randrange(len(raw) + 1)
            raw[at : at + source.randrange(4)] = source.choice((*_WORDS, bytes([source.randrange(256)])))
        yield bytes(raw)


def main() -> None:
    """Fuzz until told otherwise (atheris), or for the given number of mutations."""
    if find_spec("atheris") is not None:
        atheris = import_module("atheris")
        atheris.instrument_all()
        atheris.Setup([*sys.argv, str(CORPUS)], check)
        atheris.Fuzz()
        return
    iterations = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    for raw in mutations(iterations, int(sys.argv[2]) if len(sys.argv) > 2 else 1):
        check(raw)
    print(f"{iterations} mutations: no fault")


if __name__ == "__main__":
    main()
