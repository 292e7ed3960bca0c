"""Fuzz the PROXY header: it is decided by the same byte however they come, and once decided it stays so."""

from __future__ import annotations

from paquebot.wire.cursor import GrammarError
from paquebot.wire.proxy import MAX_HEADER, SIGNATURE, NeedMore, NoHeader, ProxyHeader, read_header
from tests.fuzz.target import Samples, Target
from tests.support.proxy_client import Tlv, v1, v2, v2_local, with_crc32c

_WORDS = (
    b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"\r\n", b"\r", b" ", b"::1", b"127.0.0.1", b"65536", b"00", b"\0",
    SIGNATURE, b"\x21\x11\x00\x0c", b"\x20\x00\x00\x00", b"\xff\xff", b"\x03\x00\x04", b"EHLO x\r\n",
)  # fmt: skip


def _made() -> Samples:
    ends = ("192.0.2.1", "198.51.100.2", 50000, 25)
    wide = ("2001:db8::1", "2001:db8::2", 50000, 993)
    return [
        ("v1", v1(*ends)),
        ("v1 and EHLO", v1(*wide) + b"EHLO client.test\r\n"),
        ("v1 unknown", b"PROXY UNKNOWN\r\n"),
        ("v2", v2(*ends)),
        ("v2 wide", v2(*wide, Tlv(4, b"noop"), Tlv(0xEA, b"own"))),
        ("v2 local", v2_local()),
        ("v2 checked", with_crc32c(*ends)),
        ("v2 unix", SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216)),
        ("no header", b"EHLO client.test\r\n"),
        ("tls", b"\x16\x03\x01\x02\x00\x01\x00"),
        ("nothing", b""),
    ]


def check(raw: bytes) -> None:
    decided: ProxyHeader | NoHeader | str | None = None
    for end in range(min(len(raw), MAX_HEADER + 50) + 1):
        found = _read(raw[:end])
        if decided is not None:
            assert found == decided
        elif not isinstance(found, NeedMore):
            decided = found
            if isinstance(found, ProxyHeader):
                assert found.length == end <= MAX_HEADER
        else:
            assert end < MAX_HEADER


def _read(data: bytes) -> ProxyHeader | NeedMore | NoHeader | str:
    try:
        return read_header(data)
    except GrammarError as fault:
        assert 0 <= fault.position <= len(data)  # noqa: PT017
        assert str(fault).isascii()  # noqa: PT017
        return "bad"


TARGET = Target("proxy", check, _WORDS, _made)
