"""The bucket as a thread sees it: whether it is there, what it lists, and writing; `reader` reads."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import urllib3
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error

from paquebot.blobs.client import open_client
from paquebot.blobs.errors import BlobsUnavailable, did_nothing
from paquebot.blobs.pack import PREFIX
from paquebot.blobs.ranged import get_part
from paquebot.blobs.reading import PackReader
from paquebot.blobs.requests import Requests
from paquebot.observability.log import Log
from paquebot.observability.metrics import counter
from paquebot.runtime.engine_settings import S3Settings

_log = Log("paquebot.blobs")

WRITTEN_BYTES = counter("paquebot_s3_written_bytes_total", "Bytes of packs written to S3 (put)")
LIST_PAGE = 1000
_FAILURES = (MinioException, urllib3.exceptions.HTTPError, OSError)
_UNCONDITIONAL = ("NotImplemented", "InvalidArgument", "InvalidRequest", "BadRequest")


class ObjectExists(BlobsUnavailable):
    """Another object has the name under which one was to be written."""

    nothing_done = True


class ListedObject(NamedTuple):
    """An object as a list tells it. `written_ms`: by the clock of S3; 0: it does not say."""

    key: str
    size: int
    written_ms: int


class Bucket:
    """One for a process; any thread may use it."""

    def __init__(self, settings: S3Settings) -> None:
        self._name = settings.bucket
        self._client, _ = open_client(settings)
        self._requests = Requests(settings.timeout)
        self._may_head = True
        self._may_condition = True
        self.reader = PackReader(self._name, self._client, open_client(settings), self._requests)

    def exists(self) -> bool:
        return self._requests.repeated("bucket_exists", self._exists)

    def _exists(self) -> bool:
        """HEAD of a bucket takes the right to list it, but at SeaweedFS the right to read, which a service that only
        writes has not. There a list tells, of a prefix that no key has: it costs more where requests are billed."""
        if self._may_head:
            try:
                return self._client.bucket_exists(self._name)
            except S3Error as error:
                if error.code != "AccessDenied":
                    raise
        try:
            next(iter(self._client.list_objects(self._name, prefix=PREFIX + "-")), None)
        except S3Error as error:
            if error.code == "NoSuchBucket":
                return False
            raise
        self._may_head = False
        return True

    def make(self) -> None:
        self._requests.repeated("make_bucket", self._client.make_bucket, self._name)

    def page(self, start: str | None, prefix: str) -> list[ListedObject]:
        """The objects after `start`, in order, as many as one request brings."""
        return self._requests.repeated("list", self._page, start, prefix)

    def _page(self, start: str | None, prefix: str) -> list[ListedObject]:
        found = self._client.list_objects(self._name, prefix=prefix, recursive=True, start_after=start)
        page: list[ListedObject] = []
        for item in found:
            written = int(item.last_modified.timestamp() * 1000) if item.last_modified else 0
            page.append(ListedObject(str(item.object_name), int(item.size or 0), written))
            if len(page) == LIST_PAGE:
                break
        return page

    # Writing

    def put(self, key: str, data: bytes) -> None:
        """Write an object, over the one that may be there."""
        self._write(key, data, {})

    def put_new(self, key: str, data: bytes) -> None:
        """Write an object that must not be there yet, as far as S3 can tell (RFC 9110 §13.1.2, `If-None-Match: *`).
        Raises ObjectExists."""
        if not self._may_condition:
            self.put(key, data)
            return
        try:
            self._write(key, data, {"If-None-Match": "*"})
        except S3Error as error:
            if error.code not in _UNCONDITIONAL:
                raise
            self.put(key, data)  # raises the same again, unless it was the condition
            self._may_condition = False
            _log.warning("no_conditional_writes", reason=error.code)

    def _write(self, key: str, data: bytes, headers: dict[str, str]) -> None:
        """Where an earlier try may have written the object, the error is that try's: the last one may have been refused
        with certainty, or have reached nobody."""
        unsure: list[Exception] = []

        def put() -> None:
            try:
                self._put(key, data, headers)
            except _FAILURES as error:
                if not did_nothing(error):
                    unsure.append(error)
                raise

        try:
            self._requests.repeated("put", put)
        except _FAILURES as error:
            if not _is_there(error):
                raise unsure[0] if unsure else error from None
            if not unsure or not self._is_own(key, data, unsure[0]):
                raise ObjectExists(f"put: {key} is there already") from None

    def _put(self, key: str, data: bytes, headers: dict[str, str]) -> None:
        # As `put_object` does for small objects; that one takes no condition, and cuts large ones in parts.
        client: Any = self._client
        head = {"Content-Type": "application/x-paquebot-pack", **headers}
        client._execute("PUT", self._name, key, body=data, headers=head)

    def _is_own(self, key: str, data: bytes, unsure: Exception) -> bool:
        """Whether the object of this name is what an earlier try wrote, whose answer was lost: `unsure`, which is
        raised when nobody can tell."""
        try:
            return get_part(self._client, self._name, key, 0, len(data) + 1, self._requests.timeout).data == data
        except _FAILURES as error:
            if isinstance(error, S3Error) and error.code == "AccessDenied":
                # This process may only write. Its names are its own: 80 random bits.
                _log.warning("written_before", key=key)
                return True
            raise unsure from None

    def delete(self, keys: Sequence[str]) -> None:
        self._requests.repeated("delete", self._delete, keys)

    def _delete(self, keys: Sequence[str]) -> None:
        errors = self._client.remove_objects(self._name, [DeleteObject(key) for key in keys])
        for error in errors:  # the request is sent while this is read
            raise BlobsUnavailable(f"delete: {error.code}")


def _is_there(error: Exception) -> bool:
    return isinstance(error, S3Error) and error.code == "PreconditionFailed"
