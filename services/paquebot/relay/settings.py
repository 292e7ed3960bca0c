"""Settings of the relay: how it finds hosts, speaks with them, tries again, and how much it does at once."""

import enum
from dataclasses import dataclass

from paquebot.message import MAX_LINE
from paquebot.notification import SuccessLimits
from paquebot.relay.routing.routes import Routes
from paquebot.runtime.engine_settings import (
    DirectoryClientSettings,
    NatsSettings,
    PostgresSettings,
    ProcessSettings,
    S3Settings,
)
from paquebot.runtime.settings import ByteSize, Listen, Network, Seconds, Secret, setting
from paquebot.spool import SpoolSettings

MIN_LINE = 78  # bytes; RFC 5322 §2.1.1


class TlsPolicy(enum.Enum):
    """How much TLS a host must offer."""

    OFF = "off"  # never
    OPPORTUNISTIC = "opportunistic"  # RFC 7435: as much as it offers, clear text if nothing works
    ENCRYPT = "encrypt"  # any certificate, never clear text
    VERIFY = "verify"  # a certificate that is valid for the host's name


@dataclass(frozen=True, slots=True)
class SmtpTimeouts:
    """Timeouts for the other host, each for a whole reply with all its lines; the defaults are the minimum of
    RFC 5321 §4.5.3.2."""

    connect: Seconds = setting("RELAY_TIMEOUT_CONNECT", Seconds(30.0), help="timeout for connecting")
    greeting: Seconds = setting("RELAY_TIMEOUT_GREETING", Seconds(300.0), help="timeout for 220, EHLO and AUTH")
    mail: Seconds = setting("RELAY_TIMEOUT_MAIL", Seconds(300.0), help="timeout for the reply to MAIL or RSET")
    rcpt: Seconds = setting("RELAY_TIMEOUT_RCPT", Seconds(300.0), help="timeout for the reply to each RCPT")
    data: Seconds = setting("RELAY_TIMEOUT_DATA", Seconds(120.0), help="timeout for the 354 after DATA")
    block: Seconds = setting("RELAY_TIMEOUT_BLOCK", Seconds(180.0), help="timeout for 64 KiB of the message")
    end: Seconds = setting(
        "RELAY_TIMEOUT_END", Seconds(600.0), help="timeout for the reply after the end of the message"
    )
    rate: ByteSize = setting(
        "RELAY_TRANSFER_RATE",
        ByteSize(4096),
        help="minimum bytes per second of a message, beside the timeout of one block",
    )
    starttls: Seconds = setting(
        "RELAY_TIMEOUT_STARTTLS", Seconds(60.0), help="timeout for the reply to STARTTLS, and for the handshake"
    )

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError("PAQUEBOT_RELAY_TRANSFER_RATE: must be above zero")


@dataclass(frozen=True, slots=True)
class SmtpClientSettings:
    """SMTP with other hosts."""

    port: int = setting("RELAY_PORT", 25, help="the port of mail exchangers found in DNS")
    tls: str = setting("RELAY_TLS", "opportunistic", help="mail exchangers: off, opportunistic, encrypt or verify")
    route_tls: str = setting("RELAY_ROUTE_TLS", "opportunistic", help="the same for the hosts of static routes")
    ca: str = setting("RELAY_CA", "", help="PEM file of CA certificates instead of the system's")
    user: str = setting("RELAY_AUTH_USER", "", help="login at the host of the route `*`, which must then have TLS")
    password: Secret = setting("RELAY_AUTH_PASSWORD", Secret(""))
    eight_bit: str = setting(
        "RELAY_EIGHT_BIT",
        "convert",
        help="8-bit text for a host without 8BITMIME: convert (to 7 bits), bounce (5.6.3) or send",
    )
    line: ByteSize = setting(
        "RELAY_LINE", ByteSize(MAX_LINE), help="maximum line that is sent as it is, longer ones are converted; 0: any"
    )
    source: str = setting("RELAY_SOURCE", "", help="local IP address to connect from")
    attempt: Seconds = setting(
        "RELAY_ATTEMPT",
        Seconds(900.0),
        help="maximum time of an attempt at a job, all hosts together, without the content",
    )
    slow: Seconds = setting(
        "RELAY_SLOW_AFTER", Seconds(1.0), help="time after which an attempt is slow and leaves its slot to others"
    )
    recipients: int = setting("RELAY_RECIPIENTS", 100, help="maximum recipients of one transaction")
    idle: Seconds = setting("RELAY_IDLE", Seconds(3.0), help="time for which an idle connection stays open")
    messages: int = setting("RELAY_CONNECTION_MESSAGES", 100, help="maximum messages over one connection")

    def __post_init__(self) -> None:
        for name, value in (("RELAY_TLS", self.tls), ("RELAY_ROUTE_TLS", self.route_tls)):
            if value not in [policy.value for policy in TlsPolicy]:
                raise ValueError(f"PAQUEBOT_{name}: {value!r} must be off, opportunistic, encrypt or verify")
        if self.eight_bit not in ("convert", "bounce", "send"):
            raise ValueError(f"PAQUEBOT_RELAY_EIGHT_BIT: {self.eight_bit!r} must be convert, bounce or send")
        if self.line and self.line < MIN_LINE:
            raise ValueError(f"PAQUEBOT_RELAY_LINE: must be 0 or at least {MIN_LINE}")
        if bool(self.user) != bool(self.password):
            raise ValueError("PAQUEBOT_RELAY_AUTH_USER and PAQUEBOT_RELAY_AUTH_PASSWORD must be set together")


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    """How relay finds the hosts for a domain."""

    routes: tuple[str, ...] = setting(
        "RELAY_ROUTES", (), help="example.org=mx.example.net:25,.example.com=[192.0.2.1],*=[smart.example]:587"
    )
    dns: tuple[Listen, ...] = setting("RELAY_DNS", (), help="name servers, address:port; none: /etc/resolv.conf")
    dns_timeout: Seconds = setting("RELAY_DNS_TIMEOUT", Seconds(15.0), help="timeout for one name")
    dns_entries: int = setting("RELAY_DNS_ENTRIES", 20_000, help="maximum cached answers, each for its time to live")
    exchangers: int = setting("RELAY_EXCHANGERS", 10, help="maximum MX records of a domain that are used")
    addresses: int = setting("RELAY_ADDRESSES", 6, help="maximum addresses tried in one attempt")
    ipv6: bool = setting("RELAY_IPV6", True, help="try IPv6 addresses too")
    own_names: tuple[str, ...] = setting("RELAY_OWN_NAMES", (), help="our own MX hosts, beside the host name")
    own_addresses: tuple[Network, ...] = setting(
        "RELAY_OWN_ADDRESSES",
        (),
        help="addresses of our own MX hosts, beside this host's: mail to them would loop",
    )
    allow_networks: tuple[Network, ...] = setting(
        "RELAY_ALLOW_NETWORKS", (), help="networks that are not public but allowed as destinations, such as 10.0.0.0/8"
    )
    literals: bool = setting(
        "RELAY_LITERALS", False, help="send to address literals such as a@[192.0.2.1], where the network is allowed"
    )

    def __post_init__(self) -> None:
        try:
            Routes(self.routes)
        except ValueError as error:
            raise ValueError(f"PAQUEBOT_RELAY_ROUTES: {error}") from None


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """When to try again, and when to give up (RFC 5321 §4.5.4.1)."""

    delays: tuple[Seconds, ...] = setting(
        "RELAY_RETRY",
        tuple(Seconds(minutes * 60.0) for minutes in (5, 10, 20, 40, 60, 120, 240, 360)),
        help="waits after each failed attempt; the last one repeats",
    )
    jitter: float = setting("RELAY_RETRY_JITTER", 0.1, help="fraction by which a wait is made longer, at random")
    lifetime: Seconds = setting("RELAY_LIFETIME", Seconds(5 * 86400.0), help="maximum time in which a message is tried")
    bounce_lifetime: Seconds = setting(
        "RELAY_BOUNCE_LIFETIME", Seconds(2 * 86400.0), help="the same for messages with the null sender"
    )
    warn_after: Seconds = setting(
        "RELAY_WARN_AFTER", Seconds(4 * 3600.0), help="notify the sender of the delay after this; 0: never"
    )
    back_off: Seconds = setting("RELAY_BACK_OFF", Seconds(30.0), help="first rest of an unreachable destination")
    back_off_max: Seconds = setting(
        "RELAY_BACK_OFF_MAX", Seconds(1800.0), help="maximum rest of an unreachable destination"
    )

    def __post_init__(self) -> None:
        if not self.delays or min(self.delays) <= 0:
            raise ValueError("PAQUEBOT_RELAY_RETRY: must be at least one wait, each above zero")
        if not 0 <= self.jitter <= 1:
            raise ValueError("PAQUEBOT_RELAY_RETRY_JITTER: must be from 0 to 1")


@dataclass(frozen=True, slots=True)
class RelayLoadSettings:
    """Limits of a process, and the shares of one destination, address or sender."""

    attempts: int = setting("RELAY_CONCURRENCY", 100, help="maximum attempts under way in a process, without slow ones")
    unproven: int = setting(
        "RELAY_UNPROVEN_CONCURRENCY", 50, help="of them for destinations that have not answered lately"
    )
    slow: int = setting("RELAY_SLOW_CONCURRENCY", 400, help="maximum slow attempts under way (RELAY_SLOW_AFTER)")
    slow_min: Seconds = setting(
        "RELAY_SLOW_MIN", Seconds(5.0), help="minimum time of an attempt before a newer slow one takes its place"
    )
    per_destination: int = setting("RELAY_DESTINATION_CONCURRENCY", 10, help="maximum attempts for one destination")
    per_new_destination: int = setting(
        "RELAY_NEW_DESTINATION_CONCURRENCY", 2, help="maximum attempts for one that has not answered lately"
    )
    per_host: int = setting("RELAY_HOST_CONCURRENCY", 20, help="maximum attempts at one address, for all domains")
    per_new_host: int = setting(
        "RELAY_NEW_HOST_CONCURRENCY", 5, help="maximum attempts at one that has not answered yet"
    )
    per_sender: int = setting("RELAY_SENDER_CONCURRENCY", 80, help="maximum attempts for one sender, without slow ones")
    waiting: int = setting("RELAY_WAITING", 400, help="maximum claimed jobs that are not under way yet")
    waiting_per_destination: int = setting("RELAY_DESTINATION_WAITING", 100, help="of them for one destination")
    waiting_per_new_destination: int = setting(
        "RELAY_NEW_DESTINATION_WAITING", 2, help="of them for one that has not answered lately"
    )
    waiting_per_sender: int = setting("RELAY_SENDER_WAITING", 200, help="of them from one sender")
    bytes_per_destination: ByteSize = setting(
        "RELAY_DESTINATION_BYTES", ByteSize(64 * 2**20), help="maximum message bytes in memory for one destination"
    )
    parked: int = setting(
        "RELAY_PARKED",
        150_000,
        help="maximum jobs of all processes that the queue's consumer keeps for later; further ones cost more",
    )
    damaged_lifetime: Seconds = setting(
        "RELAY_DAMAGED_LIFETIME",
        Seconds(86400.0),
        help="maximum age of a message that is tried again while S3 returns it damaged",
    )
    tries: int = setting(
        "RELAY_TRIES", 20, help="number of failures for no known reason after which a job is held as poison"
    )

    def __post_init__(self) -> None:
        if not 0 < self.unproven < self.attempts:
            raise ValueError(
                "PAQUEBOT_RELAY_UNPROVEN_CONCURRENCY: must be from 1 to less than PAQUEBOT_RELAY_CONCURRENCY"
            )


@dataclass(frozen=True, slots=True)
class DestinationLabelSettings:
    """The destinations that the metrics name."""

    limit: int = setting("RELAY_DESTINATION_LABELS", 50, help="maximum destinations that metrics name; others: `other`")
    always: tuple[str, ...] = setting(
        "RELAY_DESTINATION_LABELS_ALWAYS", (), help="destinations that metrics always name"
    )


@dataclass(frozen=True, slots=True)
class RelayReportSettings:
    """Notifications to senders."""

    full_up_to: ByteSize = setting(
        "RELAY_REPORT_FULL",
        ByteSize(64 * 1024),
        help="maximum size of a message returned whole if the sender did not say",
    )
    double_bounce_to: str = setting(
        "RELAY_DOUBLE_BOUNCE_TO", "", help="address that gets failed messages with the null sender; none: dropped"
    )


@dataclass(frozen=True, slots=True)
class RelaySettings:
    process: ProcessSettings
    nats: NatsSettings
    s3: S3Settings
    postgres: PostgresSettings
    directory: DirectoryClientSettings
    spool: SpoolSettings
    client: SmtpClientSettings
    timeouts: SmtpTimeouts
    routing: RoutingSettings
    retry: RetrySettings
    load: RelayLoadSettings
    shown: DestinationLabelSettings
    report: RelayReportSettings
    success: SuccessLimits
