"""The PROXY header of a connection: in one piece, byte by byte, none, slow, bad; over a real pair of sockets."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import socket
import struct
import termios
from collections.abc import AsyncIterator, Iterator

import pytest
from prometheus_client import REGISTRY

from paquebot.runtime.net import proxy
from paquebot.runtime.net.proxy import ClientAddress, Proxies, ProxyResult, ProxySettings
from paquebot.runtime.settings import Seconds, SettingsError, load
from tests.support.proxy_client import v1, v2, v2_local

PEER, PORT = "127.0.0.1", 40000
CLIENT = ClientAddress("192.0.2.7", 56324)
HEADERS = [v1("192.0.2.7", "198.51.100.1", 56324, 25), v2("192.0.2.7", "198.51.100.1", 56324, 25)]
CLIENT_HELLO = b"\x16\x03\x01\x02\x00"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The proxy's end and the server's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def proxies(wait: float = 5.0) -> Proxies:
    return Proxies(ProxySettings((ipaddress.ip_network("127.0.0.0/8"),), Seconds(wait)))


@contextlib.contextmanager
def counted(result: ProxyResult) -> Iterator[None]:
    """Check that exactly one more connection is counted, with this result."""
    before = {one: _count(one) for one in ProxyResult}
    yield
    assert {one: _count(one) - before[one] for one in ProxyResult if _count(one) != before[one]} == {result: 1}


def _count(result: ProxyResult) -> float:
    return REGISTRY.get_sample_value("paquebot_proxy_connections_total", {"result": result.value}) or 0.0


def _unread(sock: socket.socket) -> int:
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0])


@contextlib.asynccontextmanager
async def asked(
    theirs: socket.socket, wait: float = 5.0, *, tls: bool = False
) -> AsyncIterator[asyncio.Task[ClientAddress]]:
    task = asyncio.ensure_future(proxies(wait).origin(theirs, PEER, PORT, tls=tls))
    async with asyncio.timeout(4.0):  # below every timeout of the server
        yield task  # type: ignore[misc]
        if not task.done():
            await task


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("header", HEADERS)
async def test_header_in_one_piece_leaves_the_following_bytes(
    pair: tuple[socket.socket, socket.socket], header: bytes, tls: bool
) -> None:
    ours, theirs = pair
    ours.sendall(header + CLIENT_HELLO)
    with counted(ProxyResult.HEADER):
        async with asked(theirs, tls=tls) as task:
            assert await task == CLIENT
    assert theirs.recv(100) == CLIENT_HELLO


@pytest.mark.parametrize("header", HEADERS)
async def test_header_byte_by_byte(pair: tuple[socket.socket, socket.socket], header: bytes) -> None:
    ours, theirs = pair
    with counted(ProxyResult.HEADER):
        async with asked(theirs) as task:
            for octet in header:
                ours.send(bytes([octet]))
                while _unread(theirs):
                    await asyncio.sleep(0)
            assert await task == CLIENT


async def test_local_keeps_the_peer(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ours.sendall(v2_local())
    with counted(ProxyResult.LOCAL):
        async with asked(theirs) as task:
            assert await task == ClientAddress(PEER, PORT)


async def test_ipv4_mapped_client_has_its_ipv4_address(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ours.sendall(v2("::ffff:192.0.2.7", "2001:db8::1", 56324, 25))
    async with asked(theirs) as task:
        assert await task == CLIENT


async def test_a_silent_client_is_an_ordinary_client(pair: tuple[socket.socket, socket.socket]) -> None:
    with counted(ProxyResult.DIRECT):
        async with asked(pair[1], wait=0.01) as task:
            assert await task == ClientAddress(PEER, PORT)


@pytest.mark.parametrize(("data", "tls"), [(b"a1 CAPABILITY\r\n", False), (b"QUIT\r\n", False), (CLIENT_HELLO, True)])
async def test_first_byte_of_a_client_decides_immediately(
    pair: tuple[socket.socket, socket.socket], data: bytes, tls: bool
) -> None:
    ours, theirs = pair
    ours.sendall(data)
    with counted(ProxyResult.DIRECT):
        async with asked(theirs, tls=tls) as task:
            assert await task == ClientAddress(PEER, PORT)
    assert theirs.recv(100) == data


async def test_client_that_begins_like_a_header_loses_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    async with asked(theirs) as task:
        ours.send(b"P")
        while _unread(theirs):
            await asyncio.sleep(0)
        ours.send(b"ASS x\r\n")
        assert await task == ClientAddress(PEER, PORT, b"P")
    assert theirs.recv(100) == b"ASS x\r\n"


@pytest.mark.parametrize("data", [b"PROXY TCP4 no\r\n", v2_local()[:12] + b"\x31", b"PROXY TCP4 " + b"1" * 200])
async def test_bad_header_is_refused(
    pair: tuple[socket.socket, socket.socket], data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = pair
    ours.sendall(data)
    with counted(ProxyResult.MALFORMED):
        async with asked(theirs) as task:
            assert await task is None
    assert [record.message for record in caplog.records] == ["proxy_header_refused"]


async def test_neither_header_nor_tls_is_refused_where_tls_comes_first(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    with counted(ProxyResult.MALFORMED):
        async with asked(theirs, tls=True) as task:
            ours.send(b"P")
            while _unread(theirs):
                await asyncio.sleep(0)
            ours.send(b"ASS x\r\n")
            assert await task is None


async def test_header_that_does_not_end_in_time(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "_HEADER_SECONDS", 0.05)
    ours, theirs = pair
    ours.sendall(HEADERS[0][:-1])
    with counted(ProxyResult.TIMEOUT):
        async with asked(theirs, wait=0.01) as task:
            assert await task is None


@pytest.mark.parametrize("data", [b"", b"PROXY "])
async def test_peer_that_ends(pair: tuple[socket.socket, socket.socket], data: bytes) -> None:
    ours, theirs = pair
    ours.sendall(data)
    ours.close()
    with counted(ProxyResult.DISCONNECTED):
        async with asked(theirs) as task:
            assert await task is None


async def test_waiting_connections_have_a_maximum(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "_MOST_WAITING", 1)
    one = proxies()
    first = asyncio.ensure_future(one.origin(pair[1], PEER, PORT, tls=False))
    await asyncio.sleep(0)
    with counted(ProxyResult.TOO_MANY):
        assert await one.origin(pair[1], PEER, PORT, tls=False) is None
    pair[0].sendall(HEADERS[0])
    assert await asyncio.wait_for(first, 4.0) == CLIENT
    pair[0].sendall(b"QUIT\r\n")
    assert await asyncio.wait_for(one.origin(pair[1], PEER, PORT, tls=False), 4.0) == ClientAddress(PEER, PORT)


def test_trusted_addresses() -> None:
    settings = load(ProxySettings, {"PAQUEBOT_TRUSTED_PROXIES": "10.0.0.0/8, 2001:db8::/32 192.0.2.1"})
    trusted = Proxies(settings)
    assert trusted
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1%eth0", "192.0.2.1"):
        assert trusted.trusts(address), address
    for address in ("11.0.0.1", "192.0.2.2", "::1", "::ffff:11.0.0.1"):
        assert not trusted.trusts(address), address


def test_no_address_is_trusted_by_default() -> None:
    default = Proxies(load(ProxySettings, {}))
    assert not default
    assert not default.trusts("127.0.0.1")


def test_wrong_settings_are_reported() -> None:
    with pytest.raises(SettingsError, match="PAQUEBOT_TRUSTED_PROXIES"):
        load(ProxySettings, {"PAQUEBOT_TRUSTED_PROXIES": "everybody"})
    for wait in ("0s", "1m"):
        with pytest.raises(SettingsError, match="PAQUEBOT_PROXY_WAIT"):
            load(ProxySettings, {"PAQUEBOT_PROXY_WAIT": wait})
