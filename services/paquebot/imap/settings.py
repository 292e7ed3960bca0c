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
    """RFC 8314 prefers implicit TLS; both may be open, or one."""

    imap: tuple[Listen, ...] = setting(
        "IMAP_LISTEN", (Listen("127.0.0.1", 2143),), help="IMAP with STARTTLS, separated by commas; empty: none"
    )
    imaps: tuple[Listen, ...] = setting(
        "IMAPS_LISTEN", (Listen("127.0.0.1", 2993),), help="IMAP over TLS, separated by commas; empty: none"
    )


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Bounds of sessions."""

    total: int = setting("IMAP_SESSIONS", 10_000, help="most sessions of this process")
    reserved: float = setting("IMAP_SESSIONS_RESERVED", 0.25, help="part of them kept for clients that logged in")
    per_client: int = setting(
        "IMAP_SESSIONS_PER_CLIENT", 200, help="most from one address (an IPv6 /64) that did not log in yet"
    )
    per_network: int = setting(
        "IMAP_SESSIONS_PER_NETWORK", 400, help="most from one IPv4 /24 or IPv6 /48 that did not log in yet"
    )
    per_account: int = setting("IMAP_SESSIONS_PER_ACCOUNT", 50, help="most sessions of one account")
    login: Seconds = setting("IMAP_LOGIN_TIMEOUT", Seconds(120.0), help="longest time until the client has logged in")
    login_commands: int = setting("IMAP_LOGIN_COMMANDS", 50, help="most commands before login until BYE")
    login_delay: Seconds = setting("IMAP_LOGIN_DELAY", Seconds(1.0), help="wait after a failed login; grows")
    inactivity: Seconds = setting("IMAP_TIMEOUT", Seconds(1800.0), help="inactivity after login; at least 30m")
    append: Seconds = setting("IMAP_APPEND_TIMEOUT", Seconds(3600.0), help="for all bytes of a message of APPEND")
    read: Seconds = setting("IMAP_READ_TIMEOUT", Seconds(60.0), help="longest pause inside a literal")
    write: Seconds = setting("IMAP_WRITE_TIMEOUT", Seconds(60.0), help="longest time a client may not read")
    write_rate: ByteSize = setting(
        "IMAP_WRITE_RATE",
        ByteSize(MINIMUM_RATE),
        help="bytes a second that a client takes on the whole; one that takes fewer is ended",
    )
    search_work: ByteSize = setting(
        "IMAP_SEARCH_WORK",
        ByteSize(64 * 2**30),
        help="characters that one SEARCH compares with its texts, all together",
    )
    poll: Seconds = setting("IMAP_POLL", Seconds(60.0), help="how often IDLE looks for changes without a hint")
    errors: int = setting("IMAP_ERRORS", 25, help="bad commands or logins in a session before BYE")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not 0 <= self.reserved < 1:
            raise ValueError("PAQUEBOT_IMAP_SESSIONS_RESERVED is a part of all: from 0 to less than 1")

    @property
    def slots(self) -> SlotLimits:
        return SlotLimits(self.total, self.reserved, self.per_client, self.per_network, self.per_account)


@dataclass(frozen=True, slots=True)
class BodySettings:
    """Message bytes in memory."""

    append_limit: ByteSize = setting("IMAP_APPEND_LIMIT", ByteSize(50_000_000), help="longest message of APPEND")
    cache: ByteSize = setting("IMAP_BODY_CACHE", ByteSize(64 * 2**20), help="bytes of bodies kept for reading")
    reading: ByteSize = setting("IMAP_READING", ByteSize(128 * 2**20), help="bytes that FETCH and SEARCH hold at once")
    reading_per_account: ByteSize = setting(
        "IMAP_READING_PER_ACCOUNT", ByteSize(32 * 2**20), help="bytes of these that one account's sessions hold"
    )


@dataclass(frozen=True, slots=True)
class ImapSettings:
    """Everything the IMAP service reads from its environment."""

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
