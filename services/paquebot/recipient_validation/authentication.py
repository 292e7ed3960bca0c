"""`Authentication`: a login and a password to an account, at the same cost whether the account exists or not.

Order: limits, app passwords, remembered logins, hash. A disabled account is told only to who knows its password.
"""

import datetime
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass

from grpc.aio import ServicerContext

from paquebot.directory.credentials import (
    Credentials,
    credentials,
    login_address,
    note_use,
    replace_hash,
)
from paquebot.directory.passwords import BadPassword, app_password_digest, prepared
from paquebot.observability.log import Log, shown
from paquebot.observability.metrics import counter
from paquebot.recipient_validation.boundary import Overloaded
from paquebot.recipient_validation.failures import FailureLimits
from paquebot.recipient_validation.hashing import Hashing
from paquebot.recipient_validation.login_cache import LoginCache
from paquebot.recipient_validation.settings import GuestSettings, LoginSettings
from paquebot.runtime.postgres import Postgres
from paquebot.v1 import authentication_pb2 as pb
from paquebot.v1.authentication_pb2_grpc import AuthenticationServicer

MAX_LOGIN = 320

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

_log = Log("paquebot.recipient_validation")


@dataclass(frozen=True, slots=True)
class _Verified:
    """The password was right for these credentials; `app_password_id` None: it was the account's own."""

    credentials: Credentials
    app_password_id: int | None


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
        self._guests = guests
        self._default_domain = default_domain
        self._cache = LoginCache(settings.cache, settings.cache_entries, clock)
        self._limits = FailureLimits(
            account_failures=settings.account_failures,
            client_failures=settings.client_failures,
            recovery=settings.recovery,
            entries=settings.limit_entries,
            clock=clock,
        )

    async def Authenticate(  # noqa: N802 - the contract's name
        self,
        request: pb.AuthenticateRequest,
        context: ServicerContext[pb.AuthenticateRequest, pb.AuthenticateResponse],
    ) -> pb.AuthenticateResponse:
        response = await self._authenticate(request)
        protocol = request.protocol if request.protocol in _PROTOCOLS else "other"
        result = pb.AuthenticateResult.Name(response.result).removeprefix("AUTHENTICATE_RESULT_").lower()
        LOGINS.labels(protocol, result).inc()
        if response.result != pb.AUTHENTICATE_RESULT_OK:
            _log.info(
                "login_refused",
                result=result,
                login=shown(request.login[:MAX_LOGIN]),
                client=request.client_address,
                protocol=protocol,
            )
        return response

    async def _authenticate(self, request: pb.AuthenticateRequest) -> pb.AuthenticateResponse:
        address = login_address(request.login[:MAX_LOGIN], self._default_domain)
        key = str(address) if address else request.login[:MAX_LOGIN].lower()
        attempt = self._limits.begin(key, request.client_address)
        if isinstance(attempt, int):
            return pb.AuthenticateResponse(result=pb.AUTHENTICATE_RESULT_RATE_LIMITED, retry_after_seconds=attempt)
        try:
            found = await credentials(self._postgres, address) if address else None
            verified = await self._verify(found, request.password)
        except Exception:  # an engine away, too many hashes; not a caller that goes away: that would be a free guess
            self._limits.spared(attempt)
            raise
        if verified is None:
            return pb.AuthenticateResponse(result=pb.AUTHENTICATE_RESULT_INVALID)
        self._limits.succeeded(attempt)
        if not verified.credentials.enabled:
            return pb.AuthenticateResponse(result=pb.AUTHENTICATE_RESULT_DISABLED)
        await self._note(verified, request.password)
        guest = verified.credentials.address.domain in self._guests.domains
        return pb.AuthenticateResponse(
            result=pb.AUTHENTICATE_RESULT_OK,
            account_id=verified.credentials.account_id,
            address=str(verified.credentials.address),
            quota_bytes=verified.credentials.quota_bytes,
            local_only=guest and not self._guests.relay,
            recipients_per_hour=self._guests.recipients if guest else 0,
        )

    async def _verify(self, found: Credentials | None, given: str) -> _Verified | None:
        try:
            password = prepared(given)
        except BadPassword:
            await self._hashing.verify(None, "no password")  # costs what a wrong one costs
            return None
        if found is None:
            await self._hashing.verify(None, password)
            return None
        app_password_id = _app_password(found, password)
        if app_password_id is not None:
            return _Verified(found, app_password_id)
        known = self._cache.knows(found.account_id, found.password_hash, password)
        CACHE.labels("hit" if known else "miss").inc()
        if known or await self._hashing.verify(found.password_hash, password):
            return _Verified(found, None)
        return None

    async def _note(self, verified: _Verified, given: str) -> None:
        """What a good login leaves behind."""
        found = verified.credentials
        if verified.app_password_id is not None:
            await note_use(self._postgres, verified.app_password_id, datetime.datetime.now(datetime.UTC).date())
            return
        password = prepared(given)
        if self._cache.knows(found.account_id, found.password_hash, password):
            return
        self._cache.remember(found.account_id, await self._strengthened(found, password), password)

    async def _strengthened(self, found: Credentials, password: str) -> str:
        """The stored hash, made anew when the parameters have grown since; not while there is no time for it."""
        if not self._hashing.outgrown(found.password_hash):
            return found.password_hash
        try:
            stronger = await self._hashing.hash(password)
        except Overloaded:
            return found.password_hash
        await replace_hash(self._postgres, found.account_id, found.password_hash, stronger)
        _log.info("password_hash_strengthened", account_id=found.account_id)
        return stronger


def _app_password(found: Credentials, password: str) -> int | None:
    digest = app_password_digest(found.account_id, password)
    if digest is None:
        return None
    for stored, app_password_id in found.app_passwords.items():
        if hmac.compare_digest(stored, digest):
            return app_password_id
    return None
