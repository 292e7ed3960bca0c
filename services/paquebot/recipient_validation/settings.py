"""Settings of recipient_validation."""

import ipaddress
from dataclasses import dataclass

from paquebot.directory.login_limits import LimitPolicy
from paquebot.directory.lookup import AddressRules
from paquebot.directory.passwords import MIN_LENGTH, Argon2Parameters
from paquebot.mailstore import MailstoreLimits
from paquebot.runtime.engine_settings import GrpcTlsSettings, NatsSettings, PostgresSettings, ProcessSettings
from paquebot.runtime.settings import ByteSize, Listen, ListenOrSocket, Seconds, Secret, SocketPath, setting
from paquebot.wire.address import normal_domain, parse_address

MIN_ADMIN_TOKEN = 16


@dataclass(frozen=True, slots=True)
class AddressSettings:
    """The interpretation of addresses."""

    separator: str = setting("SUBADDRESS_SEPARATOR", "+", help="separator of user and detail (RFC 5233); empty: none")
    default_domain: str = setting(
        "DEFAULT_DOMAIN", "", help="of bare logins and <Postmaster>; empty: the oldest domain"
    )
    postmaster: str = setting("POSTMASTER", "", help="gets mail for postmaster where there is no such account or alias")
    literals: tuple[str, ...] = setting("OWN_LITERALS", (), help="address literals of this host, such as [192.0.2.1]")
    other_literals: bool = setting(
        "RELAY_LITERALS", False, help="accept mail for other address literals; the relay has the same setting"
    )

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if len(self.separator) > 1:
            raise ValueError("PAQUEBOT_SUBADDRESS_SEPARATOR must be one character")
        if self.default_domain:
            object.__setattr__(self, "default_domain", normal_domain(self.default_domain))
        if self.postmaster:
            object.__setattr__(self, "postmaster", str(parse_address(self.postmaster)))
        object.__setattr__(self, "literals", tuple(normal_domain(literal) for literal in self.literals))

    @property
    def rules(self) -> AddressRules:
        return AddressRules(self.separator, self.default_domain, self.postmaster)


@dataclass(frozen=True, slots=True)
class HashSettings:
    """Cost of a password hash, and limits of waiting ones."""

    passes: int = setting("ARGON2_PASSES", 2, help="RFC 9106 passes")
    memory: ByteSize = setting("ARGON2_MEMORY", ByteSize(19 * 2**20), help="memory of one hash")
    lanes: int = setting("ARGON2_LANES", 1, help="RFC 9106 lanes")
    threads: int = setting("HASH_THREADS", 0, help="hashes under way at once; 0: one for each core")
    waiting: int = setting("HASH_WAITING", 64, help="maximum of waiting hashes; above, logins are refused temporarily")
    per_client: int = setting("HASH_WAITING_PER_CLIENT", 8, help="maximum of them for one unknown client")

    min_length: int = setting("PASSWORD_MIN_LENGTH", 12, help="minimum characters of a new password; 6 or more")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.min_length < MIN_LENGTH:
            raise ValueError(f"PAQUEBOT_PASSWORD_MIN_LENGTH must be at least {MIN_LENGTH}")
        if self.passes < 1 or self.lanes < 1 or self.memory < 8 * 1024 * self.lanes:  # RFC 9106 §3.1
            raise ValueError("PAQUEBOT_ARGON2_* must be at least 1 pass, 1 lane and 8 KiB of memory for each lane")

    @property
    def parameters(self) -> Argon2Parameters:
        return Argon2Parameters(self.passes, self.memory // 1024, self.lanes)


@dataclass(frozen=True, slots=True)
class LoginSettings:
    """The cache of good logins, and limits of failed ones."""

    cache: Seconds = setting("LOGIN_CACHE", Seconds(300.0), help="how long a good login is cached; 0: never")
    cache_entries: int = setting("LOGIN_CACHE_ENTRIES", 10_000, help="maximum of cached good logins")
    account_failures: int = setting(
        "LOGIN_FAILURES_ACCOUNT", 10, help="failures of one account from one client address before it is refused there"
    )
    client_failures: int = setting(
        "LOGIN_FAILURES_CLIENT",
        20,
        help="failures from one client address before it is refused, except to accounts known there",
    )
    recovery: Seconds = setting("LOGIN_FAILURE_RECOVERY", Seconds(30.0), help="time in which one failure expires")
    limit_entries: int = setting("LOGIN_LIMIT_ENTRIES", 50_000, help="maximum of failures stored in the directory")
    max_delay: Seconds = setting(
        "LOGIN_DELAY", Seconds(3.0), help="maximum delay after failures; shorter than RECIPIENT_VALIDATION_TIMEOUT"
    )
    delayed: int = setting("LOGINS_DELAYED", 200, help="maximum of delayed logins; above, they are refused temporarily")
    delayed_per_client: int = setting("LOGINS_DELAYED_PER_CLIENT", 5, help="maximum of them from one client address")
    known_days: int = setting("LOGIN_NETWORK_DAYS", 90, help="days that a client address with a good login is known")

    @property
    def limits(self) -> LimitPolicy:
        return LimitPolicy(self.account_failures, self.client_failures, self.account_failures, self.recovery)


@dataclass(frozen=True, slots=True)
class GuestSettings:
    """Domains whose accounts are guests, such as those of the chart's demo."""

    domains: tuple[str, ...] = setting("GUEST_DOMAINS", (), help="domains whose accounts are guests; empty: none")
    relay: bool = setting("GUEST_RELAY", False, help="guests may send mail to other domains")
    recipients: int = setting("GUEST_RECIPIENTS", 200, help="maximum recipients of a guest in an hour; 0: no limit")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.recipients < 0:
            raise ValueError("PAQUEBOT_GUEST_RECIPIENTS must be 0 or more")
        object.__setattr__(self, "domains", tuple(normal_domain(domain) for domain in self.domains))


@dataclass(frozen=True, slots=True)
class GrpcSettings:
    """The listeners, and the limits of calls."""

    tls: GrpcTlsSettings
    listen: ListenOrSocket = setting(
        "GRPC_LISTEN", (Listen("127.0.0.1", 2551),), help="host:port,..., or unix:/path; with TLS where it is set"
    )
    plain_listen: tuple[Listen, ...] = setting(
        "GRPC_PLAIN_LISTEN", (), help="further listeners without TLS, for clients of an older version"
    )
    insecure: bool = setting("GRPC_INSECURE", False, help="listen without TLS on the network: passwords in cleartext")
    reflection: bool = setting("GRPC_REFLECTION", False, help="enable gRPC reflection, for administrators' tools")
    calls: int = setting("GRPC_CALLS", 1000, help="maximum of calls under way; above, RESOURCE_EXHAUSTED")
    calls_per_client: int = setting("GRPC_CALLS_PER_CLIENT", 300, help="maximum of them from one client address")

    connections: int = setting("GRPC_CONNECTIONS", 1000, help="maximum of connections, handshakes included")
    handshake: Seconds = setting("GRPC_HANDSHAKE_TIMEOUT", Seconds(5.0), help="timeout for the TLS handshake")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not 1 <= self.calls_per_client <= self.calls:
            raise ValueError("PAQUEBOT_GRPC_CALLS_PER_CLIENT must be between 1 and PAQUEBOT_GRPC_CALLS")
        if self.listen == ():
            raise ValueError("PAQUEBOT_GRPC_LISTEN must not be empty")
        first = () if self.secure or isinstance(self.listen, SocketPath) else self.listen
        for listen in (*first, *self.plain_listen):
            if not (self.insecure or _is_loopback(listen.host)):
                raise ValueError(
                    f"gRPC would listen on {listen} without TLS, where others can read and call: set"
                    " PAQUEBOT_GRPC_TLS_CERTIFICATE, _KEY and _CA, or PAQUEBOT_GRPC_INSECURE=true"
                )

    @property
    def secure(self) -> bool:
        """Whether the listener has TLS; a UNIX socket has its directory's permissions instead."""
        return self.tls.enabled and not isinstance(self.listen, SocketPath)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class RecipientValidationSettings:
    process: ProcessSettings
    nats: NatsSettings
    postgres: PostgresSettings
    addresses: AddressSettings
    hashes: HashSettings
    logins: LoginSettings
    guests: GuestSettings
    account: MailstoreLimits
    grpc: GrpcSettings
    quota: ByteSize = setting(
        "ACCOUNT_QUOTA",
        ByteSize(10 * 2**30),
        help="of new accounts, unless they or their domain have one; 0: none",
    )
    admin_token: Secret = setting("ADMIN_TOKEN", Secret(""), help="for the Directory service; empty: it is disabled")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.admin_token and len(self.admin_token) < MIN_ADMIN_TOKEN:
            raise ValueError(f"PAQUEBOT_ADMIN_TOKEN must have at least {MIN_ADMIN_TOKEN} characters")
        if isinstance(self.grpc.listen, SocketPath) and self.process.workers > 1:
            raise ValueError("PAQUEBOT_WORKERS must be 1: workers cannot share the UNIX socket of PAQUEBOT_GRPC_LISTEN")
