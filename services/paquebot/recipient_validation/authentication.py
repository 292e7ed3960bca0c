"""`Authentication`: a login and a password to an account, at the same cost whether the account exists or not.

Order: what nobody types, app passwords, remembered logins, limits, hash. A login or a password that nobody can have,
with a control character or beyond all lengths, is no guess, and what is known to be right without a hash is none:
neither counts, nor is it ever told to come again later. A disabled account is told only to who knows its password.
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
"""Characters of a login that count: what is longer is nobody's."""
MAX_SESSIONS = 1000

_PROTOCOLS = ("smtp", "imap", "pop3")
_RESULTS = tuple(name.removeprefix("AUTHENTICATE_RESULT_").lower() for name in pb.AuthenticateResult.keys()[1:])
LOGINS = counter(
    "paquebot_recipient_validation_logins_total",
    "Logins tried",
    {"protocol": (*_PROTOCOLS, "other"), "result": _RESULTS},
)
CACHE = counter(
    "paquebot_recipient_validation_login_cache_lookups_total",
    "Passwords asked of the cache of those that were right a moment ago",
    {"result": ("hit", "miss")},
)
_VERDICTS = {
    LoginState.VALID: pb.SESSION_VERDICT_GOES_ON,
    LoginState.ACCOUNT_DISABLED: pb.SESSION_VERDICT_ACCOUNT_DISABLED,
    LoginState.ACCOUNT_REMOVED: pb.SESSION_VERDICT_ACCOUNT_REMOVED,
    LoginState.CREDENTIAL_REVOKED: pb.SESSION_VERDICT_CREDENTIAL_REVOKED,
}

_TOGETHER = 50  # connections of an account, as many as IMAP lets it have
_log = Log("paquebot.recipient_validation")


@dataclass(frozen=True, slots=True)
class _Claim:
    """Who wants to log in. `found` None: there is no such account. `password` None: no password can be like this."""

    login: str
    network: str
    found: StoredCredentials | None
    password: str | None
    known: bool
    """The account logged in from the network lately."""

    @property
    def is_possible(self) -> bool:
        """False says nothing about accounts: it follows from what was sent alone."""
        controls = any(unicodedata.category(char) in ("Cc", "Cs") for char in self.login)
        return len(self.login) < MAX_LOGIN and not controls and self.password is not None


@dataclass(frozen=True, slots=True)
class _Verified:
    """The password was right for these credentials; `app_password_id` 0: it was the account's own. `hashed`: a hash
    said so."""

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
        self._held = DelaySlots(settings.delayed, settings.delayed_per_client)
        self._refusals = RecentRefusals(settings.limit_entries, clock)
        self._same_logins = ConcurrentLogins(_TOGETHER)
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
            raise InvalidValue(f"at most {MAX_SESSIONS} sessions are checked at once")
        sessions = [
            SessionCredential(one.account_id, one.credential.app_password_id, one.credential.password_version)
            for one in request.sessions
        ]
        found = await login_states(self._postgres, sessions)
        return pb.CheckSessionsResponse(verdicts=[_VERDICTS[standing] for standing in found])

    async def _authenticate(self, request: pb.AuthenticateRequest) -> pb.AuthenticateResponse:
        claim = await self._claim(request)
        response = await self._decide(claim)
        protocol = request.protocol if request.protocol in _PROTOCOLS else "other"
        result = pb.AuthenticateResult.Name(response.result).removeprefix("AUTHENTICATE_RESULT_").lower()
        LOGINS.labels(protocol, result).inc()
        if response.result != pb.AUTHENTICATE_RESULT_OK:
            await self._log_failure(claim, result, protocol, request.client_address)
        return response

    async def _log_failure(self, claim: _Claim, result: str, protocol: str, client: str) -> None:
        """One line for each failure, with the client's address, for tools that shut guessers out. The login only when
        somebody has it: else it may be a password."""
        if claim.found is not None:
            who = {"account_id": claim.found.account_id, "login": shown(str(claim.found.address))}
        else:
            who = {"unknown_login": f"{-await self._unknown_subject(claim.login):016x}"}
        _log.info("login_failed", result=result, client=client, protocol=protocol, **who)

    async def _claim(self, request: pb.AuthenticateRequest) -> _Claim:
        login = request.login[:MAX_LOGIN]
        address = login_address(login, self._default_domain)
        network = client_keys(request.client_address).client
        found = await credentials(self._postgres, address, network) if address else None
        try:
            password = prepared(request.password)
        except BadPassword:
            password = None
        known = found is not None and found.network_used_on is not None and found.network_used_on > self._known_since()
        return _Claim(str(address) if address else login.lower(), network, found, password, known)

    def _known_since(self) -> datetime.date:
        return _today() - datetime.timedelta(days=self._settings.known_days)

    async def _decide(self, claim: _Claim) -> pb.AuthenticateResponse:
        if not claim.is_possible:
            return pb.AuthenticateResponse(result=pb.AUTHENTICATE_RESULT_INVALID)
        found, password = claim.found, claim.password
        if found is None or password is None or self._cache.knows(found.account_id, found.password_hash, password):
            return await self._verdict(claim)
        async with self._same_logins.turn(self._cache.digest(found.account_id, found.password_hash, password)):
            return await self._verdict(claim)

    async def _verdict(self, claim: _Claim) -> pb.AuthenticateResponse:
        verified = self._without_hash(claim)
        if verified is None:
            limits = self._settings.limits
            subject = claim.found.account_id if claim.found else await self._unknown_subject(claim.login)
            if wait := self._refusals.wait((subject, claim.network)):
                return _rate_limited(wait)
            attempt = await login_limits.count_attempt(
                self._postgres, limits, subject, claim.network, known=claim.known
            )
            if isinstance(attempt, AttemptRefused):
                self._refusals.note((subject, claim.network), attempt.seconds)
                return _rate_limited(attempt.seconds)
            seconds = delay_seconds(attempt, limits, self._settings.longest_delay)
            if seconds and not await self._held.wait(claim.network, seconds):
                await login_limits.uncount_attempt(self._postgres, attempt.keys)
                return _rate_limited(seconds)
            try:
                verified = await self._by_hash(claim)
            except Exception:  # an engine away, too many hashes; not a caller that goes away: that is a free guess
                await login_limits.uncount_attempt(self._postgres, attempt.keys)
                raise
            if verified is None:
                return pb.AuthenticateResponse(result=pb.AUTHENTICATE_RESULT_INVALID)
            await login_limits.uncount_attempt(self._postgres, attempt.keys)
        if not verified.credentials.enabled:
            return pb.AuthenticateResponse(result=pb.AUTHENTICATE_RESULT_DISABLED)
        await self._note(claim, verified)
        return self._identity(verified)

    def _without_hash(self, claim: _Claim) -> _Verified | None:
        """An app password, or a password that a hash found right a moment ago."""
        found, password = claim.found, claim.password
        if found is None or password is None:
            return None
        app_password_id = _app_password(found, password)
        if app_password_id is not None:
            return _Verified(found, app_password_id)
        known = self._cache.knows(found.account_id, found.password_hash, password)
        CACHE.labels("hit" if known else "miss").inc()
        return _Verified(found) if known else None

    async def _by_hash(self, claim: _Claim) -> _Verified | None:
        """A login that cannot be costs what a wrong password costs."""
        found, password = claim.found, claim.password
        stored = found.password_hash if found is not None and password is not None else None
        lane = HashClient(site_of(claim.network), stranger=not claim.known)
        right = await self._hashing.verify(stored, password if password is not None else "no password", lane)
        return _Verified(found, hashed=True) if right and found is not None else None

    async def _note(self, claim: _Claim, verified: _Verified) -> None:
        """What a good login leaves behind."""
        found, today = verified.credentials, _today()
        if claim.network and found.network_used_on != today:
            await record_network(self._postgres, found.account_id, claim.network, today)
        if verified.app_password_id:
            await record_use(self._postgres, verified.app_password_id, today)
        elif verified.hashed and claim.password is not None:
            self._cache.remember(found.account_id, await self._strengthened(found, claim.password), claim.password)

    async def _strengthened(self, found: StoredCredentials, password: str) -> str:
        """The stored hash, made anew when the parameters have grown since; not while there is no time for it."""
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
