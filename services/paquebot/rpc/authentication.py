"""Client of `Authentication`: a login and a password to an identity, or why not."""

from dataclasses import dataclass
from typing import Literal

from grpc.aio import Channel

from paquebot.rpc.channel import DirectoryUnavailable, call, trace_metadata
from paquebot.runtime.engines import DirectoryClientSettings
from paquebot.v1 import authentication_pb2 as pb
from paquebot.v1.authentication_pb2_grpc import AuthenticationStub

Protocol = Literal["smtp", "imap", "pop3"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who logged in. `address` is canonical; `quota_bytes` 0: none; `local_only`: may write to addresses of this
    installation only; `recipients_per_hour` 0: any number."""

    account_id: int
    address: str
    quota_bytes: int
    local_only: bool = False
    recipients_per_hour: int = 0


@dataclass(frozen=True, slots=True)
class InvalidCredentials:
    """Unknown account or wrong password: not told apart."""


@dataclass(frozen=True, slots=True)
class AccountDisabled:
    """The password was right; the account is switched off."""


@dataclass(frozen=True, slots=True)
class RateLimited:
    """Too many failures of this account or from this client address."""

    retry_after: int  # seconds


Refusal = InvalidCredentials | AccountDisabled | RateLimited


class AuthenticationClient:
    """One for a process; `channel` from `open_channel`."""

    def __init__(self, channel: Channel, settings: DirectoryClientSettings) -> None:
        self._stub = AuthenticationStub(channel)
        self._timeout = settings.timeout

    async def authenticate(
        self, login: str, password: str, client_address: str, protocol: Protocol, *, trace: str = ""
    ) -> Identity | Refusal:
        """`client_address` is the peer's IP address, for rate limits. Raises DirectoryUnavailable."""
        request = pb.AuthenticateRequest(
            login=login, password=password, client_address=client_address, protocol=protocol
        )
        response = await call(
            "authenticate",
            lambda: self._stub.Authenticate(request, timeout=self._timeout, metadata=trace_metadata(trace)),
        )
        match response.result:
            case pb.AUTHENTICATE_RESULT_OK:
                return Identity(
                    response.account_id,
                    response.address,
                    response.quota_bytes,
                    local_only=response.local_only,
                    recipients_per_hour=response.recipients_per_hour,
                )
            case pb.AUTHENTICATE_RESULT_INVALID:
                return InvalidCredentials()
            case pb.AUTHENTICATE_RESULT_DISABLED:
                return AccountDisabled()
            case pb.AUTHENTICATE_RESULT_RATE_LIMITED:
                return RateLimited(response.retry_after_seconds)
        raise DirectoryUnavailable("authenticate: an unknown result")
