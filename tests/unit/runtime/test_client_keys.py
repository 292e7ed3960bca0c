"""The keys under which clients are counted."""

import pytest

from paquebot.runtime.net.client_keys import client_keys


@pytest.mark.parametrize(
    ("address", "network", "client"),
    [
        ("192.0.2.1", "192.0.2.0/24", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.0/24", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48", "2001:db8:1:2::/64"),
        ("2001:0DB8:1:2::9", "2001:db8:1::/48", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/48%eth0", "fe80::/64%eth0"),
        ("not:an:address", "", ""),
        ("", "", ""),
    ],
)
def test_network_and_client_of_an_address(address: str, network: str, client: str) -> None:
    assert client_keys(address) == (network, client)
