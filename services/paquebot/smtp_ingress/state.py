"""What a session knows of its client and of the mail transaction.

RFC 5321 §3.3 (transaction), RFC 3207 §4.2 and RFC 4954 §4 (what a session forgets).
"""

import enum
import ssl
from dataclasses import dataclass, field

from paquebot.observability.trace import Span
from paquebot.rpc import Identity, SessionLogin
from paquebot.runtime.net.pace import Pace
from paquebot.runtime.net.slots import ConnectionSlot
from paquebot.runtime.shares.budget import Path, Reservation
from paquebot.runtime.shares.in_flight import account, stranger
from paquebot.v1.mail_pb2 import LocalRecipient, Notify, RemoteRecipient
from paquebot.v1.recipient_validation_pb2 import Validation
from paquebot.wire.address import Address
from paquebot.wire.smtp.commands import NullPath
from paquebot.wire.smtp.content import ChunkCollector
from paquebot.wire.smtp.parameters import MailParameters, RcptParameters

_OWNED_KEPT = 16


class Role(enum.Enum):
    """The role of a listener; the values are `Client.listener` of stored envelopes."""

    MX = "mx"
    SUBMISSION = "submission"
    SUBMISSIONS = "submissions"

    @property
    def takes_logins(self) -> bool:
        return self is not Role.MX


@dataclass(frozen=True, slots=True)
class Hello:
    """RFC 5321 §4.1.1.1. `extensions`: the keywords offered in reply to EHLO, none after HELO."""

    name: str
    extended: bool
    extensions: frozenset[str]


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """`version` as OpenSSL names it, such as TLSv1.3."""

    version: str
    cipher: str

    @classmethod
    def of(cls, tls: ssl.SSLObject) -> "TlsInfo":
        cipher = tls.cipher()
        return cls(tls.version() or "unknown", cipher[0] if cipher else "unknown")


class Recipients:
    """The destinations of the message: each once, however many forward-paths lead to it."""

    __slots__ = ("_local", "_paths", "_remote")

    def __init__(self) -> None:
        self._paths: dict[str, None] = {}
        self._local: dict[int, LocalRecipient] = {}
        self._remote: dict[str, RemoteRecipient] = {}

    def __len__(self) -> int:
        """Forward-paths accepted."""
        return len(self._paths)

    @property
    def destinations(self) -> int:
        return len(self._local) + len(self._remote)

    @property
    def paths(self) -> list[str]:
        return list(self._paths)

    @property
    def local(self) -> list[LocalRecipient]:
        return list(self._local.values())

    @property
    def remote(self) -> list[RemoteRecipient]:
        return list(self._remote.values())

    def add(self, forward_path: str, validation: Validation, parameters: RcptParameters) -> None:
        """Add the destinations of an accepted forward-path; of two paths to one account the first counts."""
        self._paths[forward_path] = None
        notify = [Notify.ValueType(item) for item in parameters.notify]
        for local in validation.local:
            local.orcpt = parameters.orcpt
            local.notify.extend(notify)
            self._local.setdefault(local.account_id, local)
        for remote in validation.remote:
            remote.orcpt = parameters.orcpt
            remote.notify.extend(notify)
            self._remote.setdefault(remote.forward_path, remote)


@dataclass(slots=True)
class MailTransaction:
    """RFC 5321 §3.3: from an accepted MAIL to the end of its message, RSET or the end of the session."""

    reverse_path: Address | NullPath
    parameters: MailParameters
    reservation: Reservation
    """Its part of the byte budget."""
    span: Span
    recipients: Recipients = field(default_factory=Recipients)
    chunks: ChunkCollector | None = None
    """RFC 3030: the chunks received; None before the first BDAT."""
    pace: Pace | None = None
    """Of the chunks, as of DATA."""
    broken: bool = False
    """RFC 3030 §2: a BDAT failed; the transaction must be reset."""

    @property
    def trace(self) -> str:
        """W3C traceparent."""
        return self.span.traceparent

    def drop_chunks(self) -> None:
        """Free the memory: the message is refused, or smaller senders need it."""
        self.chunks = ChunkCollector()


@dataclass(slots=True)
class SessionState:
    """One client's session. `id` is in its log lines."""

    id: str
    role: Role
    address: str
    port: int
    relay_client: bool
    slot: ConnectionSlot
    tls: TlsInfo | None = None
    hello: Hello | None = None
    identity: Identity | None = None
    login: SessionLogin | None = None
    """The identity's login; it may end before the session does."""
    transaction: MailTransaction | None = None
    owned: set[str] = field(default_factory=set)
    """Addresses that the directory has confirmed as the identity's."""

    @property
    def must_log_in(self) -> bool:
        return self.role.takes_logins and self.identity is None

    @property
    def budget_path(self) -> Path:
        """The holder in the byte budget that this client's bytes are charged to."""
        if self.identity is not None:
            return account(self.identity.account_id)
        return account(self.address) if self.relay_client else stranger(self.address)

    @property
    def may_relay(self) -> bool:
        return self.relay_client if self.identity is None else not self.identity.local_only

    @property
    def is_known(self) -> bool:
        """It has logged in, or is a relay client. It may stay open as long as it sends commands: programs keep sessions
        open for hours with NOOP between messages. The number of its connections is bounded."""
        return self.relay_client or self.identity is not None

    def remember_owned(self, address: str) -> None:
        if len(self.owned) < _OWNED_KEPT:
            self.owned.add(address)

    def forget(self) -> None:
        """RFC 3207 §4.2: after a TLS handshake, forget what the client has sent before."""
        self.hello = None
        self.identity = None
        self.owned.clear()
