"""The address of a login name."""

import pytest

from paquebot.directory.credentials import login_address
from paquebot.wire.address import Address


@pytest.mark.parametrize(
    ("login", "default_domain", "address"),
    [
        ("Alice@Example.ORG", "", Address("alice", "example.org")),
        ("alice@bücher.example", "", Address("alice", "xn--bcher-kva.example")),
        ("ALICE", "example.org", Address("alice", "example.org")),
        ("alice", "", None),
        ("", "example.org", None),
        ("alice@", "example.org", None),
        ("alice@[192.0.2.1]", "", Address("alice", "[192.0.2.1]")),
    ],
)
def test_login_address(login: str, default_domain: str, address: Address | None) -> None:
    assert login_address(login, default_domain) == address
