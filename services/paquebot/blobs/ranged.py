"""One ranged GET. The header of the answer is compared with the request before the body is read, and no more than the
requested bytes are read.

RFC 9110 §14.4 (Content-Range), §15.3.7 (206). A body that is longer than its range, or another range, is `WrongAnswer`:
S3, or a proxy, did not do what was requested.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import minio
import urllib3

from paquebot.blobs.pack import BadPack

_CHUNK_BYTES = 256 * 1024
_PARTIAL = 206
# RFC 9110 §14.4: Content-Range = range-unit SP ( range-resp / unsatisfied-range ); only `bytes` is requested
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


class WrongAnswer(BadPack):
    """The answer is not the requested range."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of an object from the requested offset."""

    data: bytes
    object_size: int | None
    """Size of the whole object, when the answer says so."""


@dataclass(frozen=True, slots=True)
class _Expected:
    """What the header of the answer says about its body."""

    size: int
    object_size: int | None


def get_part(client: minio.Minio, bucket: str, key: str, offset: int, length: int, seconds: float) -> Part:
    """`length` bytes at `offset`, fewer where the object ends before. `seconds`: timeout for the body.
    Raises WrongAnswer, and what `minio` and `urllib3` raise."""
    response: Any = client.get_object(bucket, key, offset=offset, length=length)
    deadline = time.monotonic() + seconds
    try:
        expected = _expected(response.status, response.headers, offset, length)
        return Part(_read(response, expected.size, deadline), expected.object_size)
    finally:
        response.close()
        response.release_conn()


def _read(response: Any, size: int, deadline: float) -> bytes:
    chunks: list[bytes] = []
    got = 0
    while chunk := response.read1(min(_CHUNK_BYTES, size - got + 1)):
        chunks.append(chunk)
        got += len(chunk)
        if got > size:
            raise WrongAnswer(f"more than the {size} requested bytes")
        if time.monotonic() > deadline:  # the client's own timeout is for each chunk
            raise urllib3.exceptions.TimeoutError("the answer is too slow")
    if got < size:
        raise WrongAnswer(f"{got} of {size} bytes")
    return b"".join(chunks)


def _expected(status: int, headers: Mapping[str, str], offset: int, length: int) -> _Expected:
    expected = _of_range(headers, offset, length) if status == _PARTIAL else _of_whole(headers, offset, length)
    stated = headers.get("Content-Length", "")
    if stated.isdecimal() and int(stated) != expected.size:
        raise WrongAnswer(f"a body of {stated} bytes instead of {expected.size}")
    return expected


def _of_range(headers: Mapping[str, str], offset: int, length: int) -> _Expected:
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if match is None:
        raise WrongAnswer("no Content-Range")
    first, last = int(match[1]), int(match[2])
    object_size = int(match[3]) if match[3] != "*" else None
    end = offset + length if object_size is None else min(offset + length, object_size)
    if (first, last) != (offset, end - 1):
        raise WrongAnswer(f"bytes {first}-{last} instead of {offset}-{end - 1}")
    return _Expected(last - first + 1, object_size)


def _of_whole(headers: Mapping[str, str], offset: int, length: int) -> _Expected:
    """A server may ignore a range and send the whole object: accepted where that is no more than was requested."""
    stated = headers.get("Content-Length", "")
    if offset or not stated.isdecimal() or int(stated) > length:
        raise WrongAnswer("not the requested range")
    return _Expected(int(stated), int(stated))
