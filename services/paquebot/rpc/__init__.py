"""Typed asynchronous clients of recipient_validation's gRPC services."""

from paquebot.rpc.authentication import (
    AccountDisabled,
    AuthenticationClient,
    Credential,
    Identity,
    InvalidCredentials,
    LoginRefusal,
    RateLimited,
)
from paquebot.rpc.channel import CallFailed, CallRefused, DirectoryUnavailable, open_channel
from paquebot.rpc.directory import DirectoryClient, DirectoryRefused
from paquebot.rpc.recordings import Recordings, TranscriptRecorder
from paquebot.rpc.sessions import LoginEnd, Logins, SessionCheckSettings, SessionLogin
from paquebot.rpc.validation import ValidationCacheSettings, ValidationClient

__all__ = [
    "AccountDisabled",
    "AuthenticationClient",
    "CallFailed",
    "CallRefused",
    "Credential",
    "DirectoryClient",
    "DirectoryRefused",
    "DirectoryUnavailable",
    "Identity",
    "InvalidCredentials",
    "LoginEnd",
    "LoginRefusal",
    "Logins",
    "RateLimited",
    "Recordings",
    "SessionCheckSettings",
    "SessionLogin",
    "TranscriptRecorder",
    "ValidationCacheSettings",
    "ValidationClient",
    "open_channel",
]
