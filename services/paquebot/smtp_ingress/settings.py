"""Settings of smtp_ingress."""

import enum
from dataclasses import dataclass

from paquebot.rpc import SessionCheckSettings, ValidationCacheSettings
from paquebot.runtime.engine_settings import (
    DirectoryClientSettings,
    NatsSettings,
    ProcessSettings,
    S3Settings,
    TlsSettings,
)
from paquebot.runtime.net.pace import PaceSettings
from paquebot.runtime.net.proxy import ProxySettings
from paquebot.runtime.net.slots import SlotLimits
from paquebot.runtime.settings import ByteSize, Listen, Network, Seconds, setting
from paquebot.runtime.shares.event_loop import FairnessSettings
from paquebot.runtime.shares.in_flight import ShareSettings
from paquebot.spool import SpoolSettings
from paquebot.wire.smtp.content import MIN_LINE_LIMIT

SLACK = 64 * 1024
"""Bytes of transparency dots and the end mark that DATA may add to the maximum size of a message."""


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """Each role has its own addresses; an empty one turns the role off, so that a cluster can scale each role alone."""

    mx: tuple[Listen, ...] = setting(
        "SMTP_MX_LISTEN", (Listen("127.0.0.1", 2525),), help="from other hosts (port 25); empty: none"
    )
    submission: tuple[Listen, ...] = setting(
        "SMTP_SUBMISSION_LISTEN",
        (Listen("127.0.0.1", 2587),),
        help="from mail clients, with STARTTLS (port 587); empty: none",
    )
    submissions: tuple[Listen, ...] = setting(
        "SMTP_SUBMISSIONS_LISTEN",
        (Listen("127.0.0.1", 2465),),
        help="from mail clients, over TLS (port 465); empty: none",
    )


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Limits on connections and on the commands of a session."""

    connections: int = setting("SMTP_CONNECTIONS", 2000, help="maximum connections of this process")
    reserved: float = setting("SMTP_CONNECTIONS_RESERVED", 0.25, help="part of them reserved for clients that log in")
    per_client: int = setting(
        "SMTP_CONNECTIONS_PER_CLIENT", 100, help="maximum without login from one address (an IPv6 /64)"
    )
    per_network: int = setting(
        "SMTP_CONNECTIONS_PER_NETWORK", 400, help="maximum without login from one IPv4 /24 or IPv6 /48"
    )
    per_account: int = setting("SMTP_CONNECTIONS_PER_ACCOUNT", 50, help="maximum of one account")
    errors: int = setting("SMTP_ERRORS", 20, help="maximum permanent errors in a session")
    idle_commands: int = setting("SMTP_IDLE_COMMANDS", 1000, help="maximum commands without login that send no mail")
    login_commands: int = setting("SMTP_LOGIN_COMMANDS", 30, help="on submission, maximum commands before login")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        slots = (self.connections, self.per_client, self.per_network, self.per_account)
        if min(*slots, self.errors, self.idle_commands, self.login_commands) < 1:
            raise ValueError(
                "PAQUEBOT_SMTP_CONNECTIONS, _CONNECTIONS_PER_CLIENT, _PER_NETWORK, _PER_ACCOUNT, _ERRORS, "
                "_IDLE_COMMANDS and _LOGIN_COMMANDS must be at least 1"
            )
        if not 0 <= self.reserved < 1:
            raise ValueError("PAQUEBOT_SMTP_CONNECTIONS_RESERVED must be at least 0 and less than 1")

    @property
    def slots(self) -> SlotLimits:
        return SlotLimits(self.connections, self.reserved, self.per_client, self.per_network, self.per_account)


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """Limits on one message."""

    size: ByteSize = setting("SMTP_MAX_SIZE", ByteSize(50 * 2**20), help="maximum size of a message")
    recipients: int = setting("SMTP_RECIPIENTS", 500, help="maximum recipients of a message; RFC 5321: at least 100")
    hops: int = setting("SMTP_HOPS", 100, help="maximum Received fields; RFC 5321 §6.3: at least 100")
    header: ByteSize = setting("SMTP_HEADER", ByteSize(2 * 2**20), help="maximum size of a message's header")
    line: int = setting("SMTP_LINE", 0, help="maximum length of a message's lines in bytes, CRLF included; 0: no limit")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not 1 <= self.recipients <= 900:  # each recipient may be a job, and a batch has at most 1000
            raise ValueError("PAQUEBOT_SMTP_RECIPIENTS must be from 1 to 900")
        if self.line and self.line < MIN_LINE_LIMIT:
            raise ValueError(f"PAQUEBOT_SMTP_LINE must be 0 or at least {MIN_LINE_LIMIT} (RFC 5321 §4.5.3.1.6)")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts for a client; the defaults are the minima of RFC 5321 §4.5.3.2."""

    command: Seconds = setting("SMTP_COMMAND_TIMEOUT", Seconds(300.0), help="timeout for the next command")
    data: Seconds = setting("SMTP_DATA_TIMEOUT", Seconds(180.0), help="timeout for the next bytes of a message")
    message: Seconds = setting("SMTP_MESSAGE_TIMEOUT", Seconds(3600.0), help="timeout for all bytes of a message")
    without_mail: Seconds = setting(
        "SMTP_SESSION_TIMEOUT", Seconds(900.0), help="without login, timeout from one message to the next"
    )
    login: Seconds = setting("SMTP_LOGIN_TIMEOUT", Seconds(120.0), help="on submission, timeout for the login")
    handshake: Seconds = setting("SMTP_TLS_TIMEOUT", Seconds(60.0), help="timeout for a TLS handshake")
    write: Seconds = setting("SMTP_WRITE_TIMEOUT", Seconds(60.0), help="timeout for a client to read replies")
    greet_pause: Seconds = setting(
        "SMTP_GREET_PAUSE", Seconds(0.0), help="on mx: wait before the greeting, and refuse clients that send first"
    )


class SenderPolicy(enum.Enum):
    """The treatment of a submitted message without From, or with a Sender that is not the login's."""

    REFUSE = "refuse"
    REWRITE = "rewrite"


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """What clients may send."""

    relay_clients: tuple[Network, ...] = setting(
        "SMTP_RELAY_CLIENTS", (), help="networks whose hosts may send anywhere through mx, without login"
    )
    check_from: bool = setting(
        "SMTP_CHECK_FROM", True, help="on submission, From must belong to the login, as the reverse-path does"
    )
    submission_sender: str = setting(
        "SUBMISSION_SENDER", "refuse", help="a submitted message without From or with a foreign Sender: refuse, rewrite"
    )
    hide_client: bool = setting(
        "SMTP_HIDE_CLIENT", False, help="on submission, leave the client's address out of Received"
    )

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.submission_sender not in {policy.value for policy in SenderPolicy}:
            raise ValueError("PAQUEBOT_SUBMISSION_SENDER must be refuse or rewrite")

    @property
    def sender(self) -> SenderPolicy:
        return SenderPolicy(self.submission_sender)


@dataclass(frozen=True, slots=True)
class SmtpIngressSettings:
    """All settings of smtp_ingress."""

    process: ProcessSettings
    shares: ShareSettings
    pace: PaceSettings
    listen: ListenSettings
    proxy: ProxySettings
    fairness: FairnessSettings
    tls: TlsSettings
    nats: NatsSettings
    s3: S3Settings
    spool: SpoolSettings
    directory: DirectoryClientSettings
    checks: SessionCheckSettings
    cache: ValidationCacheSettings
    sessions: SessionLimits
    messages: MessageLimits
    timeouts: Timeouts
    policy: PolicySettings

    @property
    def takes_logins(self) -> bool:
        return bool(self.listen.submission or self.listen.submissions)

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.takes_logins and self.tls.certificate is None:
            raise ValueError(
                "PAQUEBOT_TLS_CERTIFICATE and PAQUEBOT_TLS_KEY must be set for submission and submissions: "
                "clients log in over TLS only"
            )
        if self.messages.size > self.process.in_flight:
            raise ValueError("PAQUEBOT_SMTP_MAX_SIZE must not be larger than PAQUEBOT_IN_FLIGHT")
