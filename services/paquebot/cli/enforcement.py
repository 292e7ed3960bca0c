"""Whether the cluster's network enforces NetworkPolicies: an address that they forbid us is tried."""

import socket

from paquebot.runtime.settings import Listen

_SECONDS = 3.0


def enforcement(forbidden: Listen) -> str:
    """A sentence for a person about what came of a connection to `forbidden`, which something listens on."""
    try:
        with socket.create_connection((forbidden.host, forbidden.port), _SECONDS):
            return (
                f"NetworkPolicies: NOT ENFORCED here, for this pod reached {forbidden}, which they forbid it; "
                "every pod of the cluster reaches the ports of this release"
            )
    except socket.gaierror:
        return f"NetworkPolicies: not known, for {forbidden.host} has no address"
    except OSError:
        return f"NetworkPolicies: enforced, for {forbidden} did not answer this pod"
