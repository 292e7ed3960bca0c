"""Typed asynchronous clients of recipient_validation's gRPC services."""

from paquebot.rpc.authentication import (
    AccountDisabled,
    AuthenticationClient,
    Identity,
    InvalidCredentials,
    RateLimited,
    Refusal,
)
from paquebot.rpc.channel import DirectoryUnavailable, open_channel
from paquebot.rpc.directory import DirectoryClient, DirectoryRefused
from paquebot.rpc.validation import ValidationCacheSettings, ValidationClient

__all__ = [
    "AccountDisabled",
    "AuthenticationClient",
    "DirectoryClient",
    "DirectoryRefused",
    "DirectoryUnavailable",
    "Identity",
    "InvalidCredentials",
    "RateLimited",
    "Refusal",
    "ValidationCacheSettings",
    "ValidationClient",
    "open_channel",
]
