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
    """RFC 8314 prefers implicit TLS; both may be open, or one."""

    pop3: tuple[Listen, ...] = setting(
        "POP3_LISTEN", (Listen("127.0.0.1", 2110),), help="POP3 with STLS, separated by commas; empty: none"
    )
    pop3s: tuple[Listen, ...] = setting(
        "POP3S_LISTEN", (Listen("127.0.0.1", 2995),), help="POP3 over TLS, separated by commas; empty: none"
    )


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Bounds of sessions."""

    total: int = setting("POP3_SESSIONS", 10_000, help="most sessions of this process")
    reserved: float = setting("POP3_SESSIONS_RESERVED", 0.25, help="part of them kept for clients that logged in")
    per_client: int = setting(
        "POP3_SESSIONS_PER_CLIENT", 100, help="most from one address (an IPv6 /64) that did not log in yet"
    )
    per_network: int = setting(
        "POP3_SESSIONS_PER_NETWORK", 400, help="most from one IPv4 /24 or IPv6 /48 that did not log in yet"
    )
    login: Seconds = setting("POP3_LOGIN_TIMEOUT", Seconds(60.0), help="longest time until the client has logged in")
    login_commands: int = setting("POP3_LOGIN_COMMANDS", 50, help="most commands before login until the end")
    login_delay: Seconds = setting("POP3_LOGIN_DELAY", Seconds(1.0), help="wait after a failed login; grows")
    inactivity: Seconds = setting("POP3_TIMEOUT", Seconds(600.0), help="inactivity after login; at least 10m")
    write: Seconds = setting("POP3_WRITE_TIMEOUT", Seconds(60.0), help="longest time a client may not read")
    write_rate: ByteSize = setting(
        "POP3_WRITE_RATE",
        ByteSize(MINIMUM_RATE),
        help="bytes a second that a client takes on the whole; one that takes fewer is ended",
    )
    errors: int = setting("POP3_ERRORS", 20, help="bad commands and failed logins before the session is ended")
    lease: Seconds = setting(
        "POP3_LEASE", Seconds(60.0), help="how long a maildrop stays locked after its process has died"
    )

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not 0 <= self.reserved < 1:
            raise ValueError("PAQUEBOT_POP3_SESSIONS_RESERVED is a part of all: from 0 to less than 1")

    @property
    def seats(self) -> SlotLimits:
        """One session holds an account's maildrop, so accounts need no bound of their own."""
        return SlotLimits(self.total, self.reserved, self.per_client, self.per_network, self.total)


@dataclass(frozen=True, slots=True)
class MaildropSettings:
    """What reading a message does."""

    reading_per_account: ByteSize = setting(
        "POP3_READING_PER_ACCOUNT", ByteSize(32 * 2**20), help="bytes of messages that one account's sessions hold"
    )
    measured: ByteSize = setting(
        "POP3_MEASURED",
        ByteSize(16 * 2**20),
        help="bytes of messages read at a login to tell exact sizes of what older programs appended",
    )
    marks_seen: bool = setting("POP3_MARKS_SEEN", True, help="a retrieved message is marked as read for IMAP")


@dataclass(frozen=True, slots=True)
class Pop3Settings:
    """Everything the POP3 service reads from its environment."""

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
            raise ValueError("PAQUEBOT_POP3_LISTEN and PAQUEBOT_POP3S_LISTEN are both empty")
        if self.listen.pop3s and self.tls.certificate is None:
            raise ValueError("PAQUEBOT_POP3S_LISTEN needs PAQUEBOT_TLS_CERTIFICATE")
        if self.session.lease <= 0:
            raise ValueError("PAQUEBOT_POP3_LEASE must be longer than nothing")
