"""The address families that a list of listeners serves."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from paquebot.runtime.net.sockets import bound, port_of
from paquebot.runtime.settings import Listen
from tests.support.loopback import free_port


def served(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=10.0).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize(
    ("hosts", "ipv4", "ipv6"),
    [
        (["127.0.0.1"], True, False),
        (["::1"], False, True),
        (["127.0.0.1", "::1"], True, True),
        (["0.0.0.0"], True, False),
        (["::"], True, True),
        (["0.0.0.0", "::"], True, True),
        (["::", "0.0.0.0"], True, True),
    ],
)
def test_families(hosts: list[str], ipv4: bool, ipv6: bool) -> None:
    port = free_port()
    with ExitStack() as stack:
        places = [Listen(host, port) for host in hosts]
        for place in places:
            stack.enter_context(bound(place, beside=places))
        assert (served("127.0.0.1", port), served("::1", port)) == (ipv4, ipv6)


def test_the_ipv4_listener_of_another_port_is_no_reason_to_refuse_ipv4() -> None:
    with bound(Listen("::", free_port()), beside=[Listen("127.0.0.1", free_port())]) as both:
        assert served("127.0.0.1", port_of(both))
