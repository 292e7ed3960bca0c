"""Client of `Authentication`: checks a login and a password, and whether sessions may go on."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import grpc
from grpc.aio import AioRpcError, Channel

from paquebot.rpc.channel import CallRefused, DirectoryUnavailable, call, trace_metadata
from paquebot.runtime.engine_settings import DirectoryClientSettings
from paquebot.v1 import authentication_pb2 as pb
from paquebot.v1.authentication_pb2_grpc import AuthenticationStub

Protocol = Literal["smtp", "imap", "pop3"]


MAX_CHECKED = 1000
"""Maximum of sessions in one `check_sessions`."""


@dataclass(frozen=True, slots=True)
class Credential:
    """The credential of a session's login. `app_password_id` 0: the account's own password, of `password_version` (0:
    unknown, from a service of an older version)."""

    app_password_id: int = 0
    password_version: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """The account that logged in. `address` is canonical; `quota_bytes` 0: none; `local_only`: may send mail only to
    addresses of this installation; `recipients_per_hour` 0: no limit."""

    account_id: int
    address: str
    quota_bytes: int
    local_only: bool = False
    recipients_per_hour: int = 0
    credential: Credential = field(default=Credential(), compare=False)


@dataclass(frozen=True, slots=True)
class InvalidCredentials:
    """Unknown account or wrong password: not distinguished."""


@dataclass(frozen=True, slots=True)
class AccountDisabled:
    """The password was right; the account is disabled."""


@dataclass(frozen=True, slots=True)
class RateLimited:
    """Too many failed logins to this account or from this client address."""

    retry_after: int  # seconds


LoginRefusal = InvalidCredentials | AccountDisabled | RateLimited


class AuthenticationClient:
    """One for a process; `channel` from `open_channel`."""

    def __init__(self, channel: Channel, settings: DirectoryClientSettings) -> None:
        self._stub = AuthenticationStub(channel)
        self._timeout = settings.timeout

    async def authenticate(
        self, login: str, password: str, client_address: str, protocol: Protocol, *, trace: str = ""
    ) -> Identity | LoginRefusal:
        """`client_address` is the client's IP address, for rate limits. A login that no account can have has invalid
        credentials. Raises DirectoryUnavailable, CallFailed."""

        def ask() -> Awaitable[pb.AuthenticateResponse]:
            request = pb.AuthenticateRequest(
                login=login, password=password, client_address=client_address, protocol=protocol
            )
            return self._stub.Authenticate(request, timeout=self._timeout, metadata=trace_metadata(trace))

        try:
            response = await call("authenticate", ask)
        except CallRefused:
            return InvalidCredentials()
        match response.result:
            case pb.AUTHENTICATE_RESULT_OK:
                return Identity(
                    response.account_id,
                    response.address,
                    response.quota_bytes,
                    local_only=response.local_only,
                    recipients_per_hour=response.recipients_per_hour,
                    credential=_credential(response.credential),
                )
            case pb.AUTHENTICATE_RESULT_INVALID:
                return InvalidCredentials()
            case pb.AUTHENTICATE_RESULT_DISABLED:
                return AccountDisabled()
            case pb.AUTHENTICATE_RESULT_RATE_LIMITED:
                return RateLimited(response.retry_after_seconds)
        raise DirectoryUnavailable("authenticate: unknown result")

    async def check_sessions(
        self, sessions: Sequence[tuple[int, Credential]], *, timeout: float | None = None
    ) -> list["pb.SessionVerdict.ValueType"]:
        """A verdict for each account id and credential, in order; at most MAX_CHECKED. A service of an older version
        ends no session. Raises DirectoryUnavailable."""
        request = pb.CheckSessionsRequest(
            sessions=[
                pb.LoggedIn(
                    account_id=account_id,
                    credential=pb.Credential(
                        app_password_id=credential.app_password_id, password_version=credential.password_version
                    ),
                )
                for account_id, credential in sessions
            ]
        )
        try:
            response = await call(
                "check_sessions", lambda: self._stub.CheckSessions(request, timeout=timeout or self._timeout)
            )
        except DirectoryUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, AioRpcError) and cause.code() is grpc.StatusCode.UNIMPLEMENTED:
                return [pb.SESSION_VERDICT_GOES_ON] * len(sessions)
            raise
        if len(response.verdicts) != len(sessions):
            raise DirectoryUnavailable("check_sessions: not one verdict for each session")
        return list(response.verdicts)


def _credential(credential: pb.Credential) -> Credential:
    return Credential(credential.app_password_id, credential.password_version)
