"""Settings of the IMAP service."""

from dataclasses import dataclass

from paquebot.mailstore import MailstoreLimits
from paquebot.rpc import SessionCheckSettings
from paquebot.runtime.engine_settings import (
    DirectoryClientSettings,
    NatsSettings,
    PostgresSettings,
    ProcessSettings,
    S3Settings,
    TlsSettings,
)
from paquebot.runtime.net.pace import PaceSettings
from paquebot.runtime.net.proxy import ProxySettings
from paquebot.runtime.net.slots import SlotLimits
from paquebot.runtime.net.write_allowance import MINIMUM_RATE
from paquebot.runtime.settings import ByteSize, Listen, Seconds, setting
from paquebot.runtime.shares.event_loop import FairnessSettings
from paquebot.runtime.shares.in_flight import ShareSettings
from paquebot.spool import SpoolSettings


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """RFC 8314 prefers implicit TLS; a process may have both kinds of listeners, or one."""

    imap: tuple[Listen, ...] = setting(
        "IMAP_LISTEN", (Listen("127.0.0.1", 2143),), help="IMAP with STARTTLS, separated by commas; empty: none"
    )
    imaps: tuple[Listen, ...] = setting(
        "IMAPS_LISTEN", (Listen("127.0.0.1", 2993),), help="IMAP over TLS, separated by commas; empty: none"
    )


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Limits of sessions."""

    total: int = setting("IMAP_SESSIONS", 10_000, help="maximum sessions of a process")
    reserved: float = setting(
        "IMAP_SESSIONS_RESERVED", 0.25, help="fraction of them reserved for clients that have logged in"
    )
    per_client: int = setting(
        "IMAP_SESSIONS_PER_CLIENT", 200, help="maximum from one address (an IPv6 /64) before login"
    )
    per_network: int = setting(
        "IMAP_SESSIONS_PER_NETWORK", 400, help="maximum from one IPv4 /24 or IPv6 /48 before login"
    )
    per_account: int = setting("IMAP_SESSIONS_PER_ACCOUNT", 50, help="maximum sessions of one account")
    login: Seconds = setting("IMAP_LOGIN_TIMEOUT", Seconds(120.0), help="timeout for the login")
    login_commands: int = setting("IMAP_LOGIN_COMMANDS", 50, help="maximum commands before login")
    login_delay: Seconds = setting("IMAP_LOGIN_DELAY", Seconds(1.0), help="delay after a failed login; grows")
    inactivity: Seconds = setting("IMAP_TIMEOUT", Seconds(1800.0), help="inactivity timeout after login; at least 30m")
    append: Seconds = setting(
        "IMAP_APPEND_TIMEOUT", Seconds(3600.0), help="timeout for all bytes of a message of APPEND"
    )
    read: Seconds = setting("IMAP_READ_TIMEOUT", Seconds(60.0), help="timeout for the next bytes of a literal")
    write: Seconds = setting("IMAP_WRITE_TIMEOUT", Seconds(60.0), help="timeout for a client that does not read")
    write_rate: ByteSize = setting(
        "IMAP_WRITE_RATE",
        ByteSize(MINIMUM_RATE),
        help="minimum bytes a second, on average, that a client must read",
    )
    search_work: ByteSize = setting(
        "IMAP_SEARCH_WORK",
        ByteSize(64 * 2**30),
        help="maximum characters that one SEARCH compares with its texts",
    )
    poll: Seconds = setting("IMAP_POLL", Seconds(60.0), help="interval of polls in IDLE, for changes without a hint")
    errors: int = setting("IMAP_ERRORS", 25, help="maximum bad commands and failed logins of a session")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not 0 <= self.reserved < 1:
            raise ValueError("PAQUEBOT_IMAP_SESSIONS_RESERVED must be at least 0 and less than 1")

    @property
    def slots(self) -> SlotLimits:
        return SlotLimits(self.total, self.reserved, self.per_client, self.per_network, self.per_account)


@dataclass(frozen=True, slots=True)
class BodySettings:
    """Message bytes in memory."""

    append_limit: ByteSize = setting(
        "IMAP_APPEND_LIMIT", ByteSize(50_000_000), help="maximum size of a message of APPEND"
    )
    cache: ByteSize = setting("IMAP_BODY_CACHE", ByteSize(64 * 2**20), help="maximum bytes of cached bodies")
    reading: ByteSize = setting(
        "IMAP_READING", ByteSize(128 * 2**20), help="maximum bytes that FETCH and SEARCH read at once"
    )
    reading_per_account: ByteSize = setting(
        "IMAP_READING_PER_ACCOUNT", ByteSize(32 * 2**20), help="maximum of these for one account"
    )


@dataclass(frozen=True, slots=True)
class ImapSettings:
    """All settings of the IMAP service."""

    process: ProcessSettings
    shares: ShareSettings
    pace: PaceSettings
    nats: NatsSettings
    s3: S3Settings
    postgres: PostgresSettings
    directory: DirectoryClientSettings
    checks: SessionCheckSettings
    tls: TlsSettings
    spool: SpoolSettings
    listen: ListenSettings
    proxy: ProxySettings
    fairness: FairnessSettings
    account: MailstoreLimits
    session: SessionSettings
    bodies: BodySettings

    def __post_init__(self) -> None:
        if not self.listen.imap and not self.listen.imaps:
            raise ValueError("PAQUEBOT_IMAP_LISTEN and PAQUEBOT_IMAPS_LISTEN are both empty")
        if self.listen.imaps and self.tls.certificate is None:
            raise ValueError("PAQUEBOT_IMAPS_LISTEN needs PAQUEBOT_TLS_CERTIFICATE")
