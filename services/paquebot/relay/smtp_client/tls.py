"""TLS with other hosts: the modes to try with a host, in order, and which mode worked last.

Opportunistic security (RFC 7435): first with a verified certificate, then with any, then in clear; each fall back
is a new connection, is counted, and is remembered for an hour once it has worked, so that a host with a bad certificate
costs one connection a message and not two. A stricter policy shortens the list. RFC 3207, RFC 8996 (minimum TLS 1.2).
"""

import enum
import ssl
import time
from collections.abc import Callable

from cachetools import TTLCache

from paquebot.relay.outcome import Host
from paquebot.relay.settings import TlsPolicy

_REMEMBER_SECONDS = 3600.0
_REMEMBER_HOSTS = 10_000


class TlsMode(enum.Enum):
    """How a session with a host is secured."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"
    CLEAR = "clear"


MODES: dict[TlsPolicy, tuple[TlsMode, ...]] = {
    TlsPolicy.OFF: (TlsMode.CLEAR,),
    TlsPolicy.OPPORTUNISTIC: (TlsMode.VERIFIED, TlsMode.UNVERIFIED, TlsMode.CLEAR),
    TlsPolicy.ENCRYPT: (TlsMode.VERIFIED, TlsMode.UNVERIFIED),
    TlsPolicy.VERIFY: (TlsMode.VERIFIED,),
}


class TlsContexts:
    """The two SSL contexts of the process. `ca`: PEM file, instead of the system's. Raises OSError."""

    def __init__(self, ca: str = "") -> None:
        self._verified = ssl.create_default_context(cafile=ca or None)
        self._verified.minimum_version = ssl.TLSVersion.TLSv1_2
        self._unverified = ssl.create_default_context()
        self._unverified.minimum_version = ssl.TLSVersion.TLSv1_2
        self._unverified.check_hostname = False
        self._unverified.verify_mode = ssl.CERT_NONE

    def of(self, mode: TlsMode) -> ssl.SSLContext:
        return self._verified if mode is TlsMode.VERIFIED else self._unverified


class TlsMemory:
    """The mode that worked last with each host; bounded in number and time. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._known: TTLCache[Host, TlsMode] = TTLCache(_REMEMBER_HOSTS, _REMEMBER_SECONDS, clock)

    def modes(self, host: Host, policy: TlsPolicy) -> tuple[TlsMode, ...]:
        """The modes to try, in order; never outside the policy."""
        modes = MODES[policy]
        first = self._known.get(host)
        return modes[modes.index(first) :] if first is not None and first in modes else modes

    def remember(self, host: Host, mode: TlsMode) -> None:
        """No better mode than `mode` worked with the host."""
        self._known[host] = mode
