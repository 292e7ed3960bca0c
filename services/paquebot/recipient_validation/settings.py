"""Settings of recipient_validation."""

from dataclasses import dataclass

from paquebot.directory.lookup import Rules
from paquebot.directory.passwords import Argon2Parameters
from paquebot.runtime.engines import PostgresSettings, ProcessSettings
from paquebot.runtime.settings import Listen, Octets, Seconds, Secret, setting
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
    def rules(self) -> Rules:
        return Rules(self.separator, self.default_domain, self.postmaster)


@dataclass(frozen=True, slots=True)
class HashSettings:
    """Cost of a password, and of the flood of them."""

    passes: int = setting("ARGON2_PASSES", 2, help="RFC 9106 passes")
    memory: Octets = setting("ARGON2_MEMORY", Octets(19 * 2**20), help="memory of one hash")
    lanes: int = setting("ARGON2_LANES", 1, help="RFC 9106 lanes")
    threads: int = setting("HASH_THREADS", 0, help="hashes under way at once; 0: one a core")
    waiting: int = setting("HASH_WAITING", 64, help="most hashes waiting; above, logins are refused temporarily")

    def __post_init__(self) -> None:
        """Raises ValueError."""
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
    account_failures: int = setting("LOGIN_FAILURES_ACCOUNT", 10, help="failures in a row for one account")
    client_failures: int = setting("LOGIN_FAILURES_CLIENT", 20, help="failures in a row from one client address")
    recovery: Seconds = setting("LOGIN_FAILURE_RECOVERY", Seconds(30.0), help="time that forgives one failure")
    limit_entries: int = setting("LOGIN_LIMIT_ENTRIES", 50_000, help="most accounts, and clients, remembered")


@dataclass(frozen=True, slots=True)
class RecipientValidationSettings:
    process: ProcessSettings
    postgres: PostgresSettings
    addresses: AddressSettings
    hashes: HashSettings
    logins: LoginSettings
    listen: Listen = setting("GRPC_LISTEN", Listen("127.0.0.1", 2551))
    admin_token: Secret = setting("ADMIN_TOKEN", Secret(""), help="of the Directory service; empty: it is closed")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.admin_token and len(self.admin_token) < MIN_ADMIN_TOKEN:
            raise ValueError(f"PAQUEBOT_ADMIN_TOKEN has at least {MIN_ADMIN_TOKEN} characters")
