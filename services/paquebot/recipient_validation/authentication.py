"""`Authentication`: checks a login and a password, at the same cost whether the account exists or not.

Order: impossible logins, app passwords, cached logins, limits, hash. An impossible login or password, with a control
character or too long, is not a guess, and neither is a password that is known to be right without a hash: these do not
count as failures and are never rate-limited. Only a client that knows the password learns that an account is disabled.
"""

import datetime
import hmac
import math
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from grpc.aio import ServicerContext

from paquebot.directory import login_limits
from paquebot.directory.credentials import (
    StoredCredentials,
    credentials,
    login_address,
    record_use,
    replace_hash,
)
from paquebot.directory.errors import InvalidValue
from paquebot.directory.login_limits import AttemptRefused, login_key, record_network, site_of, unknown_subject
from paquebot.directory.passwords import BadPassword, app_password_digest, prepared
from paquebot.directory.sessions import LoginState, SessionCredential, login_states
from paquebot.observability.log import Log, shown
from paquebot.observability.metrics import counter
from paquebot.recipient_validation.boundary import Overloaded
from paquebot.recipient_validation.concurrent_logins import ConcurrentLogins
from paquebot.recipient_validation.hashing import HashClient, Hashing
from paquebot.recipient_validation.login_cache import LoginCache
from paquebot.recipient_validation.login_delays import DelaySlots, RecentRefusals, delay_seconds
from paquebot.recipient_validation.settings import GuestSettings, LoginSettings
from paquebot.runtime.net.client_keys import client_keys
from paquebot.runtime.postgres.pool import Postgres
from paquebot.v1 import authentication_pb2 as pb
from paquebot.v1.authentication_pb2_grpc import AuthenticationServicer

MAX_LOGIN = 1024
"""Characters of a login; no account has a longer one."""
MAX_SESSIONS = 1000

_PROTOCOLS = ("smtp", "imap", "pop3")
_RESULTS = tuple(name.removeprefix("AUTHENTICATE_RESULT_").lower() for name in pb.AuthenticateResult.keys()[1:])
LOGINS = counter(
    "paquebot_recipient_validation_logins_total",
    "Login attempts",
    {"protocol": (*_PROTOCOLS, "other"), "result": _RESULTS},
)
CACHE = counter(
    "paquebot_recipient_validation_login_cache_lookups_total",
    "Lookups of passwords in the cache of recent good logins",
    {"result": ("hit", "miss")},
)
_VERDICTS = {
    LoginState.VALID: pb.SESSION_VERDICT_GOES_ON,
    LoginState.ACCOUNT_DISABLED: pb.SESSION_VERDICT_ACCOUNT_DISABLED,
    LoginState.ACCOUNT_REMOVED: pb.SESSION_VERDICT_ACCOUNT_REMOVED,
    LoginState.CREDENTIAL_REVOKED: pb.SESSION_VERDICT_CREDENTIAL_REVOKED,
}

_MAX_CONCURRENT = 50  # equal logins; IMAP permits an account so many connections
_log = Log("paquebot.recipient_validation")


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A login attempt. `found` None: no such account. `password` None: an impossible password."""

    login: str
    network: str
    found: StoredCredentials | None
    password: str | None
    known: bool
    """The account logged in from the network recently."""

    @property
    def is_possible(self) -> bool:
        """False reveals nothing about accounts: it depends only on what the client sent."""
        controls = any(unicodedata.category(char) in ("Cc", "Cs") for char in self.login)
        return len(self.login) < MAX_LOGIN and not controls and self.password is not None


@dataclass(frozen=True, slots=True)
class _Verified:
    """The password is right for these credentials. `app_password_id` 0: it is the account's own. `hashed`: a hash was
    compared."""

    credentials: StoredCredentials
    app_password_id: int = 0
    hashed: bool = False


class Authentication(AuthenticationServicer):
    """`clock` is monotonic seconds."""

    def __init__(
        self,
        postgres: Postgres,
        hashing: Hashing,
        settings: LoginSettings,
        default_domain: str,
        clock: Callable[[], float] = time.monotonic,
        guests: GuestSettings = GuestSettings(),  # noqa: B008 - frozen
    ) -> None:
        self._postgres = postgres
        self._hashing = hashing
        self._settings = settings
        self._guests = guests
        self._default_domain = default_domain
        self._cache = LoginCache(settings.cache, settings.cache_entries, clock)
        self._delays = DelaySlots(settings.delayed, settings.delayed_per_client)
        self._refusals = RecentRefusals(settings.limit_entries, clock)
        self._concurrent_logins = ConcurrentLogins(_MAX_CONCURRENT)
        self._login_key: bytes | None = None

    async def Authenticate(  # noqa: N802 - the contract's name
        self,
        request: pb.AuthenticateRequest,
        context: ServicerContext[pb.AuthenticateRequest, pb.AuthenticateResponse],
    ) -> pb.AuthenticateResponse:
        return await self._authenticate(request)

    async def CheckSessions(  # noqa: N802 - the contract's name
        self,
        request: pb.CheckSessionsRequest,
        context: ServicerContext[pb.CheckSessionsRequest, pb.CheckSessionsResponse],
    ) -> pb.CheckSessionsResponse:
        if len(request.sessions) > MAX_SESSIONS:
            raise InvalidValue(f"at most {MAX_SESSIONS} sessions can be checked at once")
        sessions = [
            SessionCredential(one.account_id, one.credential.app_password_id, one.credential.password_version)
            for one in request.sessions
        ]
        states = await login_states(self._postgres, sessions)
        return pb.CheckSessionsResponse(verdicts=[_VERDICTS[state] for state in states])

    async def _authenticate(self, request: pb.AuthenticateRequest) -> pb.AuthenticateResponse:
        attempt = await self._read_attempt(request)
        response = await self._decide(attempt)
        protocol = request.protocol if request.protocol in _PROTOCOLS else "other"
        result = pb.AuthenticateResult.Name(response.result).removeprefix("AUTHENTICATE_RESULT_").lower()
        LOGINS.labels(protocol, result).inc()
        if response.result != pb.AUTHENTICATE_RESULT_OK:
            await self._log_failure(attempt, result, protocol, request.client_address)
        return response

    async def _log_failure(self, attempt: _Attempt, result: str, protocol: str, client: str) -> None:
        """One line for each failure, with the client's address, for tools that block attackers. Logs a login only when
        an account has it: else it may be a password."""
        if attempt.found is not None:
            who = {"account_id": attempt.found.account_id, "login": shown(str(attempt.found.address))}
        else:
            who = {"unknown_login": f"{-await self._unknown_subject(attempt.login):016x}"}
        _log.info("login_failed", result=result, client=client, protocol=protocol, **who)

    async def _read_attempt(self, request: pb.AuthenticateRequest) -> _Attempt:
        login = request.login[:MAX_LOGIN]
        address = login_address(login, self._default_domain)
        network = client_keys(request.client_address).client
        found = await credentials(self._postgres, address, network) if address else None
        try:
            password = prepared(request.password)
        except BadPassword:
            password = None
        known = found is not None and found.network_used_on is not None and found.network_used_on > self._known_since()
        return _Attempt(str(address) if address else login.lower(), network, found, password, known)

    def _known_since(self) -> datetime.date:
        return _today() - datetime.timedelta(days=self._settings.known_days)

    async def _decide(self, attempt: _Attempt) -> pb.AuthenticateResponse:
        if not attempt.is_possible:
            return pb.AuthenticateResponse(result=pb.AUTHENTICATE_RESULT_INVALID)
        found, password = attempt.found, attempt.password
        if found is None or password is None or self._cache.has(found.account_id, found.password_hash, password):
            return await self._verdict(attempt)
        async with self._concurrent_logins.turn(self._cache.digest(found.account_id, found.password_hash, password)):
            return await self._verdict(attempt)

    async def _verdict(self, attempt: _Attempt) -> pb.AuthenticateResponse:
        verified = self._without_hash(attempt)
        if verified is None:
            limits = self._settings.limits
            subject = attempt.found.account_id if attempt.found else await self._unknown_subject(attempt.login)
            if wait := self._refusals.wait((subject, attempt.network)):
                return _rate_limited(wait)
            counted = await login_limits.count_attempt(
                self._postgres, limits, subject, attempt.network, known=attempt.known
            )
            if isinstance(counted, AttemptRefused):
                self._refusals.add((subject, attempt.network), counted.seconds)
                return _rate_limited(counted.seconds)
            seconds = delay_seconds(counted, limits, self._settings.max_delay)
            if seconds and not await self._delays.wait(attempt.network, seconds):
                await login_limits.uncount_attempt(self._postgres, counted.keys)
                return _rate_limited(seconds)
            try:
                verified = await self._by_hash(attempt)
            except Exception:  # an engine is away, or too many hashes wait; not a cancelled call: a free guess
                await login_limits.uncount_attempt(self._postgres, counted.keys)
                raise
            if verified is None:
                return pb.AuthenticateResponse(result=pb.AUTHENTICATE_RESULT_INVALID)
            await login_limits.uncount_attempt(self._postgres, counted.keys)
        if not verified.credentials.enabled:
            return pb.AuthenticateResponse(result=pb.AUTHENTICATE_RESULT_DISABLED)
        await self._record(attempt, verified)
        return self._identity(verified)

    def _without_hash(self, attempt: _Attempt) -> _Verified | None:
        """Checks app passwords and the cache of recent good logins."""
        found, password = attempt.found, attempt.password
        if found is None or password is None:
            return None
        app_password_id = _app_password(found, password)
        if app_password_id is not None:
            return _Verified(found, app_password_id)
        known = self._cache.has(found.account_id, found.password_hash, password)
        CACHE.labels("hit" if known else "miss").inc()
        return _Verified(found) if known else None

    async def _by_hash(self, attempt: _Attempt) -> _Verified | None:
        """An impossible login takes as long as a wrong password."""
        found, password = attempt.found, attempt.password
        stored = found.password_hash if found is not None and password is not None else None
        client = HashClient(site_of(attempt.network), is_known=attempt.known)
        right = await self._hashing.verify(stored, password if password is not None else "no password", client)
        return _Verified(found, hashed=True) if right and found is not None else None

    async def _record(self, attempt: _Attempt, verified: _Verified) -> None:
        """Record a good login."""
        found, today = verified.credentials, _today()
        if attempt.network and found.network_used_on != today:
            await record_network(self._postgres, found.account_id, attempt.network, today)
        if verified.app_password_id:
            await record_use(self._postgres, verified.app_password_id, today)
        elif verified.hashed and attempt.password is not None:
            self._cache.add(found.account_id, await self._strengthened(found, attempt.password), attempt.password)

    async def _strengthened(self, found: StoredCredentials, password: str) -> str:
        """The stored hash, or a new one when the parameters have grown since; not while too many hashes wait."""
        if not self._hashing.is_weaker(found.password_hash):
            return found.password_hash
        try:
            stronger = await self._hashing.hash(password)
        except Overloaded:
            return found.password_hash
        await replace_hash(self._postgres, found.account_id, found.password_hash, stronger)
        _log.info("password_hash_strengthened", account_id=found.account_id)
        return stronger

    def _identity(self, verified: _Verified) -> pb.AuthenticateResponse:
        found = verified.credentials
        guest = found.address.domain in self._guests.domains
        version = 0 if verified.app_password_id else found.password_version
        return pb.AuthenticateResponse(
            result=pb.AUTHENTICATE_RESULT_OK,
            account_id=found.account_id,
            address=str(found.address),
            quota_bytes=found.quota_bytes,
            credential=pb.Credential(app_password_id=verified.app_password_id, password_version=version),
            local_only=guest and not self._guests.relay,
            recipients_per_hour=self._guests.recipients if guest else 0,
        )

    async def _unknown_subject(self, login: str) -> int:
        if self._login_key is None:
            self._login_key = await login_key(self._postgres)
        return unknown_subject(self._login_key, login)


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


def _rate_limited(seconds: float) -> pb.AuthenticateResponse:
    return pb.AuthenticateResponse(
        result=pb.AUTHENTICATE_RESULT_RATE_LIMITED, retry_after_seconds=max(1, math.ceil(seconds))
    )


def _app_password(found: StoredCredentials, password: str) -> int | None:
    digest = app_password_digest(found.account_id, password)
    if digest is None:
        return None
    for stored, app_password_id in found.app_passwords.items():
        if hmac.compare_digest(stored, digest):
            return app_password_id
    return None
