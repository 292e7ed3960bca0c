"""Settings of smtp_ingress."""

from dataclasses import dataclass

from paquebot.rpc import SessionCheckSettings, ValidationCacheSettings
from paquebot.runtime.engines import (
    DirectoryClientSettings,
    NatsSettings,
    ProcessSettings,
    S3Settings,
    TlsSettings,
)
from paquebot.runtime.fairness import FairnessSettings
from paquebot.runtime.proxy import ProxySettings
from paquebot.runtime.settings import Listen, Network, Octets, Seconds, setting
from paquebot.spool import SpoolSettings


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """Each role has addresses of its own; without one it is off, so that a cluster scales the roles apart."""

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
    """Bounds of connections and of what a client may do in one."""

    connections: int = setting("SMTP_CONNECTIONS", 2000, help="most connections of this process")
    per_client: int = setting("SMTP_CONNECTIONS_PER_CLIENT", 100, help="most connections from one address")
    errors: int = setting("SMTP_ERRORS", 20, help="permanent errors in a session before 421")
    idle_commands: int = setting("SMTP_IDLE_COMMANDS", 100, help="commands that bring no mail on before 421")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if min(self.connections, self.per_client, self.errors, self.idle_commands) < 1:
            raise ValueError(
                "PAQUEBOT_SMTP_CONNECTIONS, _CONNECTIONS_PER_CLIENT, _ERRORS and _IDLE_COMMANDS are at least 1"
            )


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """Bounds of one message."""

    size: Octets = setting("SMTP_MAX_SIZE", Octets(50 * 2**20), help="longest message")
    recipients: int = setting("SMTP_RECIPIENTS", 500, help="most recipients of a message; RFC 5321: at least 100")
    hops: int = setting("SMTP_HOPS", 100, help="most Received fields; RFC 5321 §6.3: at least 100")
    line: int = setting("SMTP_LINE", 1000, help="longest line of a message in octets, CRLF included")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not 1 <= self.recipients <= 900:  # every recipient may be a job, and a batch has at most 1000
            raise ValueError("PAQUEBOT_SMTP_RECIPIENTS is from 1 to 900")
        if self.line < 1000:
            raise ValueError("PAQUEBOT_SMTP_LINE is at least 1000 (RFC 5321 §4.5.3.1.6)")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a client may be silent; the minima of RFC 5321 §4.5.3.2 by default."""

    command: Seconds = setting("SMTP_COMMAND_TIMEOUT", Seconds(300.0), help="for the next command")
    data: Seconds = setting("SMTP_DATA_TIMEOUT", Seconds(180.0), help="for the next octets of a message")
    message: Seconds = setting("SMTP_MESSAGE_TIMEOUT", Seconds(3600.0), help="for all octets of a message")
    handshake: Seconds = setting("SMTP_TLS_TIMEOUT", Seconds(60.0), help="for a TLS handshake")
    write: Seconds = setting("SMTP_WRITE_TIMEOUT", Seconds(60.0), help="for reading our replies")
    greet_pause: Seconds = setting(
        "SMTP_GREET_PAUSE", Seconds(0.0), help="on mx: wait, and refuse who speaks before the greeting"
    )


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """Who may do what."""

    relay_clients: tuple[Network, ...] = setting(
        "SMTP_RELAY_CLIENTS", (), help="networks whose hosts may send anywhere through mx, without login"
    )
    check_from: bool = setting(
        "SMTP_CHECK_FROM", True, help="on submission, From must belong to the login, as the reverse-path does"
    )
    hide_client: bool = setting(
        "SMTP_HIDE_CLIENT", False, help="on submission, leave the client's address out of Received"
    )


@dataclass(frozen=True, slots=True)
class SmtpIngressSettings:
    process: ProcessSettings
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

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if (self.listen.submission or self.listen.submissions) and self.tls.certificate is None:
            raise ValueError(
                "PAQUEBOT_TLS_CERTIFICATE and PAQUEBOT_TLS_KEY must be set for submission and submissions: "
                "logins travel over TLS only"
            )
        if self.messages.size > self.process.in_flight:
            raise ValueError("PAQUEBOT_SMTP_MAX_SIZE is larger than PAQUEBOT_IN_FLIGHT: no such message could come in")
