"""Any octets, in any pieces: the PROXY grammar decides at the same octet, and never asks for more than its maximum."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paquebot.wire.cursor import GrammarError
from paquebot.wire.proxy import MAX_HEADER, SIGNATURE, Endpoint, NeedMore, NoHeader, ProxyHeader, read_header
from tests.support.proxy_client import Tlv, v1, v2, with_crc32c

_addresses = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)), st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6))
)
_ports = st.integers(0, 0xFFFF)
_tlvs = st.lists(st.builds(Tlv, st.integers(4, 255), st.binary(max_size=40)), max_size=4)
_beginnings = st.sampled_from(
    [
        b"",
        b"PROXY",
        b"PROXY ",
        b"PROXY TCP4 1.2.3.4 ",
        b"PROXY UNKNOWN",
        SIGNATURE,
        SIGNATURE + b"\x21\x11\x00",
        SIGNATURE + b"\x21\x11\x00\x20" + bytes(12),
        SIGNATURE + b"\x20\x00\x00",
    ]
)


def outcome(data: bytes) -> ProxyHeader | NeedMore | NoHeader | str:
    try:
        return read_header(data)
    except GrammarError as error:
        assert 0 <= error.position <= len(data)  # noqa: PT017
        assert str(error).isascii()  # noqa: PT017
        return "bad"


@given(_beginnings, st.binary(max_size=600))
def test_once_decided_it_stays_decided(beginning: bytes, rest: bytes) -> None:
    data = beginning + rest
    outcomes = [outcome(data[:end]) for end in range(len(data) + 1)]
    undecided = [one == NeedMore() for one in outcomes]
    assert undecided == sorted(undecided, reverse=True)
    assert sum(undecided) <= MAX_HEADER
    decided = [one for one in outcomes if one != NeedMore()]
    assert all(one == decided[0] for one in decided)
    if decided and isinstance(decided[0], ProxyHeader):
        assert decided[0].length == sum(undecided)


@given(_addresses, _ports, _ports, _tlvs, st.binary(max_size=50))
def test_headers_round_trip(
    ends: tuple[object, object], source_port: int, destination_port: int, tlvs: list[Tlv], rest: bytes
) -> None:
    source, destination = map(str, ends)
    for header in (
        v1(source, destination, source_port, destination_port),
        v2(source, destination, source_port, destination_port, *tlvs),
        with_crc32c(source, destination, source_port, destination_port, *tlvs),
    ):
        found = read_header(header + rest)
        assert found == ProxyHeader(len(header), Endpoint(source, source_port), Endpoint(destination, destination_port))
