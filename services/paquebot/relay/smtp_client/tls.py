"""TLS towards other hosts: which ways to try with a host, in order, and what is remembered of it.

Opportunistic security (RFC 7435): first with a verified certificate, then with any, then in clear; each fall back
is a new connection, is counted, and is remembered for an hour once it has worked, so that a host with a bad certificate
is not dialled twice for every message. A policy that demands more cuts the list short. RFC 3207, RFC 8996 (TLS 1.2 at
least).
"""

import enum
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable

from paquebot.relay.outcome import Host
from paquebot.relay.settings import TlsPolicy

_REMEMBER_SECONDS = 3600.0
_REMEMBER_HOSTS = 10_000


class TlsMode(enum.Enum):
    """One way to speak with a host."""

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
    """What worked last with each host; bounded in number and time. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[Host, tuple[float, TlsMode]] = OrderedDict()

    def modes(self, host: Host, policy: TlsPolicy) -> tuple[TlsMode, ...]:
        """What to try, in order; never outside the policy."""
        modes = MODES[policy]
        until, start = self._known.get(host, (0.0, modes[0]))
        if self._clock() >= until or start not in modes:
            return modes
        return modes[modes.index(start) :]

    def remember(self, host: Host, mode: TlsMode) -> None:
        """A better way than `mode` did not work with the host."""
        self._known[host] = (self._clock() + _REMEMBER_SECONDS, mode)
        self._known.move_to_end(host)
        while len(self._known) > _REMEMBER_HOSTS:
            self._known.popitem(last=False)
