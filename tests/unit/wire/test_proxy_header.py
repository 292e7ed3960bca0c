"""Headers of the PROXY protocol: the spec's examples, each prefix of each, and bad headers."""

from __future__ import annotations

import pytest

from paquebot.wire.cursor import GrammarError
from paquebot.wire.proxy import (
    MAX_HEADER,
    MAX_LINE,
    SIGNATURE,
    Endpoint,
    NeedMore,
    NoHeader,
    ProxyHeader,
    crc32c,
    is_of_header,
    read_header,
)
from tests.support.proxy_client import Tlv, v1, v2, with_crc32c

CLIENT, SERVER = Endpoint("192.0.2.7", 56324), Endpoint("198.51.100.1", 25)
CLIENT6, SERVER6 = Endpoint("2001:db8::7", 1), Endpoint("2001:db8::1", 65535)
UNIX = SIGNATURE + b"\x21\x31" + (216).to_bytes(2, "big") + bytes(216)

GOOD = [
    (v1("192.0.2.7", "198.51.100.1", 56324, 25), CLIENT, SERVER),
    (b"PROXY TCP6 2001:DB8:0:0::7 2001:db8::1 1 65535\r\n", CLIENT6, SERVER6),
    (b"PROXY UNKNOWN\r\n", None, None),
    (b"PROXY UNKNOWN ffff::1 whatever it says 99999\r\n", None, None),
    (b"PROXY UNKNOWN " + b"x" * (MAX_LINE - 16) + b"\r\n", None, None),
    (v2("192.0.2.7", "198.51.100.1", 56324, 25), CLIENT, SERVER),
    (v2("2001:db8::7", "2001:db8::1", 1, 65535), CLIENT6, SERVER6),
    (v2("192.0.2.7", "198.51.100.1", 56324, 25, Tlv(2, b"mx.example"), Tlv(0xEA, b"\x01vpce")), CLIENT, SERVER),
    (with_crc32c("192.0.2.7", "198.51.100.1", 56324, 25, Tlv(4, bytes(5))), CLIENT, SERVER),
    (SIGNATURE + b"\x20\x00\x00\x00", None, None),
    (SIGNATURE + b"\x20\xff\x00\x03abc", None, None),  # LOCAL: family and the rest are ignored
    (SIGNATURE + b"\x21\x00\x00\x00", None, None),
    (UNIX, None, None),
]


@pytest.mark.parametrize(("data", "source", "destination"), GOOD)
def test_good_header_whole_in_pieces_and_followed_by_others(
    data: bytes, source: Endpoint | None, destination: Endpoint | None
) -> None:
    header = ProxyHeader(len(data), source, destination)
    assert read_header(data) == header
    assert read_header(data + b"EHLO client.example\r\n") == header
    assert read_header(data + data) == header
    for end in range(len(data)):
        assert read_header(data[:end]) == NeedMore()


def test_longest_header_of_version_2() -> None:
    filling = MAX_HEADER - 16 - 12 - 3
    assert read_header(v2("192.0.2.7", "198.51.100.1", 56324, 25, Tlv(4, bytes(filling)))) == ProxyHeader(
        MAX_HEADER, CLIENT, SERVER
    )
    with pytest.raises(GrammarError, match="at most 536 octets"):
        read_header(v2("192.0.2.7", "198.51.100.1", 56324, 25, Tlv(4, bytes(filling + 1)))[:16])


@pytest.mark.parametrize(
    "data",
    [b"EHLO client.example\r\n", b"PASS x", b"PRO\r", b"proxy TCP4 ", b"\x16\x03\x01", b"a1 LOGIN", b"\r\nQUIT", b"\n"],
)
def test_no_header(data: bytes) -> None:
    assert read_header(data) == NoHeader()


@pytest.mark.parametrize(
    "data",
    [
        b"PROXYTCP4",
        b"PROXY \r\n",
        b"PROXY\r\n",
        b"PROXY  TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2 \r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 2\r\n",
        b"PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 2001:db8::7 198.51.100.1 1 2\r\n",
        b"PROXY TCP6 192.0.2.7 2001:db8::1 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 2001:db8::1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7\t198.51.100.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\rX",
        b"PROXY UNKNOWN " + b"x" * (MAX_LINE - 15) + b"\r\n",
        b"PROXY UNKNOWN " + b"x" * MAX_LINE,
        SIGNATURE + b"\x11",
        SIGNATURE + b"\x22",
        SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),
        SIGNATURE + b"\x21\x21\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12),  # UDP
        SIGNATURE + b"\x21\x41\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\x00\x0e" + bytes(14),  # no whole TLV
        SIGNATURE + b"\x21\x11\x00\x10" + bytes(12) + b"\x04\x00\x02a",
        SIGNATURE + b"\x21\x11\x00\x11" + bytes(12) + b"\x03\x00\x02ab",  # a checksum of two octets
        v2("192.0.2.7", "198.51.100.1", 1, 2, Tlv(3, bytes(4))),  # a wrong checksum
    ],
)
def test_bad_header(data: bytes) -> None:
    with pytest.raises(GrammarError) as caught:
        read_header(data)
    assert 0 <= caught.value.position <= len(data)


def test_one_flipped_bit_breaks_the_checksum() -> None:
    good = with_crc32c("192.0.2.7", "198.51.100.1", 56324, 25, Tlv(4, b"abc"))
    for position in range(16, 28):  # the addresses and ports
        bad = bytearray(good)
        bad[position] ^= 1
        with pytest.raises(GrammarError, match="CRC32C"):
            read_header(bytes(bad))


def test_checksum_of_rfc_3720() -> None:
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"123456789") == 0xE3069283


def test_lines_of_a_header_within_a_session() -> None:
    assert is_of_header(v1("192.0.2.7", "198.51.100.1", 1, 2))
    assert is_of_header(b"PROXY UNKNOWN")
    assert any(is_of_header(line) for line in v2("192.0.2.7", "198.51.100.1", 1, 2).split(b"\n"))
    assert not any(map(is_of_header, (b"PROXY LOGIN a b", b"PROXY NOOP\r\n", b"", b"\r\n", b"EHLO x\r\n")))
