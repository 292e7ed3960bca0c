"""Settings of recipient_validation."""

import ipaddress
from dataclasses import dataclass

from paquebot.directory.login_limits import LimitPolicy
from paquebot.directory.lookup import AddressRules
from paquebot.directory.passwords import MIN_SHORTEST, Argon2Parameters
from paquebot.mailstore import MailstoreLimits
from paquebot.runtime.engine_settings import GrpcTlsSettings, NatsSettings, PostgresSettings, ProcessSettings
from paquebot.runtime.settings import ByteSize, Listen, ListenOrSocket, Seconds, Secret, SocketPath, setting
from paquebot.wire.address import normal_domain, parse_address

MIN_ADMIN_TOKEN = 16


@dataclass(frozen=True, slots=True)
class AddressSettings:
    """How addresses are read."""

    separator: str = setting("SUBADDRESS_SEPARATOR", "+", help="between user and detail (RFC 5233); empty: none")
    default_domain: str = setting("DEFAULT_DOMAIN", "", help="of logins and <Postmaster>; empty: the oldest domain")
    postmaster: str = setting("POSTMASTER", "", help="who gets mail for postmaster where nobody has that name")
    literals: tuple[str, ...] = setting("OWN_LITERALS", (), help="our address literals, such as [192.0.2.1]")
    other_literals: bool = setting(
        "RELAY_LITERALS", False, help="take mail for address literals of others; the relay has the same setting"
    )

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if len(self.separator) > 1:
            raise ValueError("PAQUEBOT_SUBADDRESS_SEPARATOR is one character")
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
    """Cost of a password, and of the flood of them."""

    passes: int = setting("ARGON2_PASSES", 2, help="RFC 9106 passes")
    memory: ByteSize = setting("ARGON2_MEMORY", ByteSize(19 * 2**20), help="memory of one hash")
    lanes: int = setting("ARGON2_LANES", 1, help="RFC 9106 lanes")
    threads: int = setting("HASH_THREADS", 0, help="hashes under way at once; 0: one a core")
    waiting: int = setting("HASH_WAITING", 64, help="most hashes waiting; above, logins are refused temporarily")
    per_client: int = setting("HASH_WAITING_PER_CLIENT", 8, help="most of them for a client without a good login yet")

    shortest: int = setting("PASSWORD_MIN_LENGTH", 12, help="characters of a new password, at least; 6 or more")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.shortest < MIN_SHORTEST:
            raise ValueError(f"PAQUEBOT_PASSWORD_MIN_LENGTH is at least {MIN_SHORTEST}")
        if self.passes < 1 or self.lanes < 1 or self.memory < 8 * 1024 * self.lanes:  # RFC 9106 §3.1
            raise ValueError("PAQUEBOT_ARGON2_* need at least 1 pass, 1 lane and 8 KiB of memory a lane")

    @property
    def parameters(self) -> Argon2Parameters:
        return Argon2Parameters(self.passes, self.memory // 1024, self.lanes)


@dataclass(frozen=True, slots=True)
class LoginSettings:
    """Memory of good logins, and patience with bad ones."""

    cache: Seconds = setting("LOGIN_CACHE", Seconds(300.0), help="how long a good login needs no hash; 0: never")
    cache_entries: int = setting("LOGIN_CACHE_ENTRIES", 10_000, help="most good logins remembered")
    account_failures: int = setting(
        "LOGIN_FAILURES_ACCOUNT", 10, help="failures for one account from one client address before it is refused there"
    )
    client_failures: int = setting(
        "LOGIN_FAILURES_CLIENT", 20, help="failures from one client address; accounts used from there are let in still"
    )
    recovery: Seconds = setting("LOGIN_FAILURE_RECOVERY", Seconds(30.0), help="time that forgives one failure")
    limit_entries: int = setting("LOGIN_LIMIT_ENTRIES", 50_000, help="most failures remembered, in the directory")
    longest_delay: Seconds = setting(
        "LOGIN_DELAY", Seconds(3.0), help="longest wait after failures; shorter than RECIPIENT_VALIDATION_TIMEOUT"
    )
    delayed: int = setting("LOGINS_DELAYED", 200, help="most logins that wait; above, they are refused temporarily")
    delayed_per_client: int = setting("LOGINS_DELAYED_PER_CLIENT", 5, help="most of them from one client address")
    known_days: int = setting("LOGIN_NETWORK_DAYS", 90, help="how long a client address with a good login is known")

    @property
    def limits(self) -> LimitPolicy:
        return LimitPolicy(self.account_failures, self.client_failures, self.account_failures, self.recovery)


@dataclass(frozen=True, slots=True)
class GuestSettings:
    """Domains whose accounts are for trying, as those of the chart's demo."""

    domains: tuple[str, ...] = setting("GUEST_DOMAINS", (), help="domains whose accounts are guests; empty: none")
    relay: bool = setting("GUEST_RELAY", False, help="guests may write to other domains")
    recipients: int = setting("GUEST_RECIPIENTS", 200, help="recipients a guest may name in an hour; 0: any number")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.recipients < 0:
            raise ValueError("PAQUEBOT_GUEST_RECIPIENTS is 0 or more")
        object.__setattr__(self, "domains", tuple(normal_domain(domain) for domain in self.domains))


@dataclass(frozen=True, slots=True)
class GrpcSettings:
    """Who may reach the services, and how much of them one client may take."""

    tls: GrpcTlsSettings
    listen: ListenOrSocket = setting(
        "GRPC_LISTEN", (Listen("127.0.0.1", 2551),), help="host:port,..., or unix:/path; with TLS where it is set"
    )
    plain_listen: tuple[Listen, ...] = setting(
        "GRPC_PLAIN_LISTEN", (), help="further listeners without TLS, for clients of a version before"
    )
    insecure: bool = setting("GRPC_INSECURE", False, help="listen without TLS beyond this machine: passwords in clear")
    reflection: bool = setting("GRPC_REFLECTION", False, help="describe the services to administrators' tools")
    calls: int = setting("GRPC_CALLS", 1000, help="most calls under way; above, RESOURCE_EXHAUSTED")
    calls_per_client: int = setting("GRPC_CALLS_PER_CLIENT", 300, help="the same for one address of a client")

    connections: int = setting("GRPC_CONNECTIONS", 1000, help="most connections, those in their handshake included")
    handshake: Seconds = setting("GRPC_HANDSHAKE_TIMEOUT", Seconds(5.0), help="longest time without a certificate")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not 1 <= self.calls_per_client <= self.calls:
            raise ValueError("PAQUEBOT_GRPC_CALLS_PER_CLIENT is between 1 and PAQUEBOT_GRPC_CALLS")
        if self.listen == ():
            raise ValueError("PAQUEBOT_GRPC_LISTEN is empty")
        first = () if self.secure or isinstance(self.listen, SocketPath) else self.listen
        for listen in (*first, *self.plain_listen):
            if not (self.insecure or _is_loopback(listen.host)):
                raise ValueError(
                    f"gRPC would listen on {listen} without TLS, where others can read and ask: set"
                    " PAQUEBOT_GRPC_TLS_CERTIFICATE, _KEY and _CA, or PAQUEBOT_GRPC_INSECURE=true"
                )

    @property
    def secure(self) -> bool:
        """The listener is one with TLS; a UNIX socket has its directory's permissions instead."""
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
        "ACCOUNT_QUOTA", ByteSize(10 * 2**30), help="of new accounts, unless they or their domain have one; 0: none"
    )
    admin_token: Secret = setting("ADMIN_TOKEN", Secret(""), help="of the Directory service; empty: it is closed")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.admin_token and len(self.admin_token) < MIN_ADMIN_TOKEN:
            raise ValueError(f"PAQUEBOT_ADMIN_TOKEN has at least {MIN_ADMIN_TOKEN} characters")
        if isinstance(self.grpc.listen, SocketPath) and self.process.workers > 1:
            raise ValueError("PAQUEBOT_GRPC_LISTEN is a UNIX socket, which workers cannot share: PAQUEBOT_WORKERS is 1")
