"""What is sentence about NetworkPolicies, by whether the forbidden address answers."""

from __future__ import annotations

import socket

from paquebot.cli.roundtrip.command import enforcement
from paquebot.runtime.settings import Listen
from tests.support.loopback import free_port


def test_a_connection_means_not_enforced() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sentence = enforcement(Listen("127.0.0.1", server.getsockname()[1]))
    assert "NOT ENFORCED" in sentence


def test_no_answer_means_enforced() -> None:
    assert enforcement(Listen("127.0.0.1", free_port())).startswith("NetworkPolicies: enforced")


def test_an_unknown_name_shows_nothing() -> None:
    assert "unknown" in enforcement(Listen("nobody.invalid", 2543))
