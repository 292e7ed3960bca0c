"""The benchmark's messages: 4 KiB that do not compress, each made from its name alone, so that a reader can
check every byte of it without keeping it. Pure.
"""

from __future__ import annotations

import functools
import hashlib
import random

BYTES = 4096
MARK = b"X-Bench: "
"""Begins the first header field of what was sent; what stands above it was added on the way."""

# Bytes of a line that no server may touch: no NUL, CR or LF, and no dot, which SMTP would stuff.
_FORBIDDEN = b"\x00\n\r."
_TABLE = bytes(octet if octet not in _FORBIDDEN else 0xE0 + _FORBIDDEN.index(octet) for octet in range(256))
_LINE = 900
_TRACE = frozenset({b"return-path", b"delivered-to", b"received", b"x-original-to", b"authentication-results"})


def message(name: str, size: int = BYTES) -> bytes:
    """The message of that name, exactly `bytes` long (at least 512), 8-bit text (RFC 6152)."""
    head = (
        f"X-Bench: {name}\r\n"
        "From: Bench Sender <sender@example.org>\r\n"
        "To: Bench Reader <reader@example.org>\r\n"
        f"Subject: {subject(name)}\r\n"
        "Date: Mon, 23 Nov 2026 10:20:54 +0100\r\n"
        f"Message-ID: {message_id(name)}\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=iso-8859-1\r\n"
        "Content-Transfer-Encoding: 8bit\r\n"
        "\r\n"
    ).encode("ascii")
    left = size - len(head)
    body = bytearray(random.Random(name).randbytes(left).translate(_TABLE))
    for at in range(_LINE, left - 4, _LINE + 2):
        body[at : at + 2] = b"\r\n"
    body[-2:] = b"\r\n"
    return head + bytes(body)


def subject(name: str) -> str:
    """The subject of a message by its name."""
    return f"Benchmark message {name}"


def message_id(name: str) -> str:
    """The Message-ID of a message by its name."""
    return f"<{name}@bench.example.org>"


@functools.lru_cache(maxsize=200_000)
def digest(name: str, size: int = BYTES) -> bytes:
    """SHA-256 of the message of that name."""
    return hashlib.sha256(message(name, size)).digest()


def name_of(stored: bytes) -> str | None:
    """The name of a message as a server keeps it; None: it is none of ours, or something but trace header fields
    was put above it."""
    start = 0 if stored.startswith(MARK) else stored.find(b"\r\n" + MARK) + 2
    if start == 1:
        return None
    for line in stored[:start].split(b"\r\n"):
        if line and line[:1] not in b" \t" and line.partition(b":")[0].lower() not in _TRACE:
            return None
    end = stored.find(b"\r\n", start)
    return stored[start + len(MARK) : end].decode("ascii", "replace")


def same(stored: bytes, size: int = BYTES) -> bool:
    """Is it, below the trace header fields, the message of its name, byte for byte?"""
    name = name_of(stored)
    return name is not None and len(stored) >= size and hashlib.sha256(stored[-size:]).digest() == digest(name, size)
