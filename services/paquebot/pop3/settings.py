"""Settings of the POP3 service."""

from dataclasses import dataclass

from paquebot.rpc import SessionCheckSettings
from paquebot.runtime.engine_settings import (
    DirectoryClientSettings,
    NatsSettings,
    PostgresSettings,
    ProcessSettings,
    S3Settings,
    TlsSettings,
)
from paquebot.runtime.net.proxy import ProxySettings
from paquebot.runtime.net.slots import SlotLimits
from paquebot.runtime.net.write_allowance import MINIMUM_RATE
from paquebot.runtime.settings import ByteSize, Listen, Seconds, setting
from paquebot.runtime.shares.event_loop import FairnessSettings


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """RFC 8314 prefers implicit TLS; one or both may be open."""

    pop3: tuple[Listen, ...] = setting(
        "POP3_LISTEN", (Listen("127.0.0.1", 2110),), help="POP3 with STLS, separated by commas; empty: none"
    )
    pop3s: tuple[Listen, ...] = setting(
        "POP3S_LISTEN", (Listen("127.0.0.1", 2995),), help="POP3 over TLS, separated by commas; empty: none"
    )


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Limits on sessions."""

    total: int = setting("POP3_SESSIONS", 10_000, help="maximum sessions of this process")
    reserved: float = setting("POP3_SESSIONS_RESERVED", 0.25, help="part of them reserved for clients that log in")
    per_client: int = setting(
        "POP3_SESSIONS_PER_CLIENT", 100, help="maximum without login from one address (an IPv6 /64)"
    )
    per_network: int = setting(
        "POP3_SESSIONS_PER_NETWORK", 400, help="maximum without login from one IPv4 /24 or IPv6 /48"
    )
    login: Seconds = setting("POP3_LOGIN_TIMEOUT", Seconds(60.0), help="timeout for the login")
    login_commands: int = setting("POP3_LOGIN_COMMANDS", 50, help="maximum commands before login")
    login_delay: Seconds = setting("POP3_LOGIN_DELAY", Seconds(1.0), help="delay after a failed login; grows with each")
    inactivity: Seconds = setting("POP3_TIMEOUT", Seconds(600.0), help="timeout for the next command; RFC 1939: 10m")
    write: Seconds = setting("POP3_WRITE_TIMEOUT", Seconds(60.0), help="timeout for a client to read replies")
    write_rate: ByteSize = setting(
        "POP3_WRITE_RATE",
        ByteSize(MINIMUM_RATE),
        help="minimum average rate in bytes a second at which a client must read; a slower session is ended",
    )
    errors: int = setting("POP3_ERRORS", 20, help="maximum bad commands and failed logins of a session")
    lease: Seconds = setting(
        "POP3_LEASE", Seconds(60.0), help="time for which a maildrop stays locked after its process has died"
    )

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not 0 <= self.reserved < 1:
            raise ValueError("PAQUEBOT_POP3_SESSIONS_RESERVED must be at least 0 and less than 1")

    @property
    def slots(self) -> SlotLimits:
        """One session at a time has an account's maildrop, so accounts need no limit."""
        return SlotLimits(self.total, self.reserved, self.per_client, self.per_network, self.total)


@dataclass(frozen=True, slots=True)
class MaildropSettings:
    """Reading of messages."""

    reading_per_account: ByteSize = setting(
        "POP3_READING_PER_ACCOUNT",
        ByteSize(32 * 2**20),
        help="maximum bytes of messages that one account's sessions hold",
    )
    exact_size_bytes: ByteSize = setting(
        "POP3_EXACT_SIZE_BYTES",
        ByteSize(16 * 2**20),
        help="maximum bytes read at a login to find exact sizes of messages that older programs appended",
    )
    marks_seen: bool = setting("POP3_MARKS_SEEN", True, help="set the flag \\Seen of retrieved messages")


@dataclass(frozen=True, slots=True)
class Pop3Settings:
    """All settings of the POP3 service."""

    process: ProcessSettings
    nats: NatsSettings
    s3: S3Settings
    postgres: PostgresSettings
    directory: DirectoryClientSettings
    checks: SessionCheckSettings
    tls: TlsSettings
    listen: ListenSettings
    proxy: ProxySettings
    fairness: FairnessSettings
    session: SessionSettings
    maildrop: MaildropSettings

    def __post_init__(self) -> None:
        if not self.listen.pop3 and not self.listen.pop3s:
            raise ValueError("PAQUEBOT_POP3_LISTEN or PAQUEBOT_POP3S_LISTEN must be set")
        if self.listen.pop3s and self.tls.certificate is None:
            raise ValueError("PAQUEBOT_TLS_CERTIFICATE must be set for PAQUEBOT_POP3S_LISTEN")
        if self.session.lease <= 0:
            raise ValueError("PAQUEBOT_POP3_LEASE must be more than 0")
