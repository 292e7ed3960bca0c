"""One ranged GET. What S3 sends is compared with what was asked for before it is read, and no more is read than that.

RFC 9110 §14.4 (Content-Range), §15.3.7 (206). A body that is longer than its range, or a range that is another one, is
`WrongAnswer`: S3, or something on the way, does not do what it was asked.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import minio
import urllib3

from paquebot.blobs.pack import BadPack

_READ_BYTES = 256 * 1024
_PARTIAL = 206
# RFC 9110 §14.4: Content-Range = range-unit SP ( range-resp / unsatisfied-range ), and only `bytes` was asked for
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


class WrongAnswer(BadPack):
    """The answer is not the range that was asked for."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of an object from the offset that was asked for."""

    data: bytes
    whole: int | None
    """Bytes of the whole object, when the answer said so."""


@dataclass(frozen=True, slots=True)
class _Promise:
    """What the head of the answer says of its body."""

    octets: int
    whole: int | None


def get_part(client: minio.Minio, bucket: str, key: str, offset: int, length: int, seconds: float) -> Part:
    """`length` bytes at `offset`, fewer where the object ends before. Takes at most `seconds` for the body.
    Raises WrongAnswer, and what `minio` and `urllib3` raise."""
    response: Any = client.get_object(bucket, key, offset=offset, length=length)
    deadline = time.monotonic() + seconds
    try:
        promise = _promise(response.status, response.headers, offset, length)
        return Part(_read(response, promise.octets, deadline), promise.whole)
    finally:
        response.close()
        response.release_conn()


def _read(response: Any, octets: int, deadline: float) -> bytes:
    parts: list[bytes] = []
    got = 0
    while part := response.read1(min(_READ_BYTES, octets - got + 1)):
        parts.append(part)
        got += len(part)
        if got > octets:
            raise WrongAnswer(f"more than the {octets} bytes that were asked for")
        if time.monotonic() > deadline:  # the client's own limit is for each part alone
            raise urllib3.exceptions.TimeoutError("the answer comes too slowly")
    if got < octets:
        raise WrongAnswer(f"{got} of {octets} bytes")
    return b"".join(parts)


def _promise(status: int, headers: Mapping[str, str], offset: int, length: int) -> _Promise:
    promise = _of_range(headers, offset, length) if status == _PARTIAL else _of_whole(headers, offset, length)
    stated = headers.get("Content-Length", "")
    if stated.isdecimal() and int(stated) != promise.octets:
        raise WrongAnswer(f"a body of {stated} bytes where {promise.octets} were asked for")
    return promise


def _of_range(headers: Mapping[str, str], offset: int, length: int) -> _Promise:
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if match is None:
        raise WrongAnswer("no range is told")
    first, last = int(match[1]), int(match[2])
    whole = int(match[3]) if match[3] != "*" else None
    end = offset + length if whole is None else min(offset + length, whole)
    if (first, last) != (offset, end - 1):
        raise WrongAnswer(f"bytes {first}-{last} where {offset}-{end - 1} were asked for")
    return _Promise(last - first + 1, whole)


def _of_whole(headers: Mapping[str, str], offset: int, length: int) -> _Promise:
    """A server may ignore a range and send the whole object: it is taken where it is no more than was asked for."""
    stated = headers.get("Content-Length", "")
    if offset or not stated.isdecimal() or int(stated) > length:
        raise WrongAnswer("not the range that was asked for")
    return _Promise(int(stated), int(stated))
