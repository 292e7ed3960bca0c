"""Errors of S3: what each means to the caller, to the metrics, and to a retry."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import urllib3
from minio.error import MinioException, S3Error

from paquebot.blobs.pack import BadPack
from paquebot.observability.metrics import Fault, causes, engine_call, fault_of
from paquebot.runtime.errors import EngineRefused, EngineUnavailable


class BlobsUnavailable(EngineUnavailable):
    """S3 cannot be used now; try again later."""

    nothing_done = False
    """True when S3 certainly did nothing: it refused the request, or never received it."""


class BlobsRefused(BlobsUnavailable, EngineRefused):
    """S3 can never do this: the object, its name or a header is larger than S3 accepts."""

    nothing_done = True


class BlobMissing(Exception):
    """The object `key` is not in the bucket."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is not in the bucket")
        self.key = key


@contextlib.contextmanager
def s3_call(call: str, key: str) -> Iterator[None]:
    """Count and time a call, and raise its errors as those of this module. An answer about the object `key` (such as
    "no such key") is no error of S3 and is not counted as one."""
    with engine_call("s3", call, _fault_of):
        try:
            yield
            return
        except S3Error as error:
            answer = _ANSWERS.get(error.code or "") if key else None
            if answer is None:
                raise _unavailable(call, error.code or "", error) from error
        except (MinioException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise _unavailable(call, type(error).__name__, error) from error
    raise answer(key)


def _unavailable(call: str, reason: str, error: Exception) -> BlobsUnavailable:
    if any(map(_is_permanent, causes(error))):
        return BlobsRefused(f"{call}: {reason}")
    unavailable = BlobsUnavailable(f"{call}: {reason}")
    unavailable.nothing_done = any(map(did_nothing, causes(error)))
    return unavailable


def _is_permanent(error: BaseException) -> bool:
    if not isinstance(error, S3Error):
        return False
    return error.code in _TOO_LARGE_CODES or (error.response is not None and error.response.status in _TOO_LARGE)


def did_nothing(error: BaseException) -> bool:
    """Whether the request that failed with `error` certainly had no effect."""
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason is not None:
        return did_nothing(error.reason)
    if isinstance(error, S3Error):
        return not is_transient(error)
    return isinstance(error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)


_NOT_IMPLEMENTED = 501
_TOO_LARGE = (413, 414, 431)  # RFC 9110 §15.5.14, §15.5.15, RFC 6585 §5
_TOO_LARGE_CODES = frozenset(
    ("EntityTooLarge", "KeyTooLongError", "MetadataTooLarge", "MaxMessageLengthExceeded", "XMinioInvalidObjectName")
)


def _too_short(key: str) -> BadPack:
    return BadPack(f"{key} ends before the requested bytes")


_ANSWERS: Mapping[str, Callable[[str], Exception]] = {
    "NoSuchKey": BlobMissing,
    "NoSuchObject": BlobMissing,
    "InvalidRange": _too_short,
}


def _fault_of(error: BaseException) -> Fault:
    for cause in causes(error):
        if isinstance(cause, S3Error):
            return Fault.REFUSED
        if isinstance(cause, urllib3.exceptions.TimeoutError):
            return Fault.TIMEOUT
        if isinstance(cause, urllib3.exceptions.MaxRetryError):
            return _fault_of(cause.reason) if cause.reason is not None else Fault.CONNECTION
        if isinstance(cause, urllib3.exceptions.HTTPError):
            return Fault.CONNECTION
    return fault_of(error)


def is_transient(error: Exception) -> bool:
    """Whether a retry may help: not when S3 itself refused the request, or does not implement it."""
    if not isinstance(error, S3Error) or error.response is None:
        return True
    return error.response.status >= 500 and error.response.status != _NOT_IMPLEMENTED
