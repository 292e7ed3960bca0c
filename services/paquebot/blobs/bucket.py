"""The bucket, for use on a thread: probe, list, write and delete; `reader` reads."""

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
    """The key is already taken by another object."""

    nothing_done = True


class ListedObject(NamedTuple):
    """An object of a listing. `written_ms`: by the clock of S3; 0: S3 does not say."""

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
        return self._requests.retried("bucket_exists", self._exists)

    def _exists(self) -> bool:
        """HEAD of a bucket needs the right to list it, but at SeaweedFS the right to read, which a service that only
        writes does not have. There this lists a prefix that no key has, which costs more where requests are billed."""
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
        self._requests.retried("make_bucket", self._client.make_bucket, self._name)

    def page(self, start: str | None, prefix: str) -> list[ListedObject]:
        """The objects after `start`, in order, as many as one request returns."""
        return self._requests.retried("list", self._page, start, prefix)

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
        """Write an object; overwrites an existing one."""
        self._write(key, data, {})

    def put_new(self, key: str, data: bytes) -> None:
        """Write an object that must not exist yet (RFC 9110 §13.1.2, `If-None-Match: *`), where S3 supports the
        condition. Raises ObjectExists."""
        if not self._may_condition:
            self.put(key, data)
            return
        try:
            self._write(key, data, {"If-None-Match": "*"})
        except S3Error as error:
            if error.code not in _UNCONDITIONAL:
                raise
            self.put(key, data)  # raises the same error again, unless the condition was the cause
            self._may_condition = False
            _log.warning("conditional_writes_unsupported", reason=error.code)

    def _write(self, key: str, data: bytes, headers: dict[str, str]) -> None:
        """Raises the error of the first try that may have written the object, if there was one: S3 may have refused or
        never received the last try, which says nothing about the earlier ones."""
        uncertain: list[Exception] = []

        def put() -> None:
            try:
                self._put(key, data, headers)
            except _FAILURES as error:
                if not did_nothing(error):
                    uncertain.append(error)
                raise

        try:
            self._requests.retried("put", put)
        except _FAILURES as error:
            if not _exists_already(error):
                raise uncertain[0] if uncertain else error from None
            if not uncertain or not self._is_own(key, data, uncertain[0]):
                raise ObjectExists(f"put: {key} exists already") from None

    def _put(self, key: str, data: bytes, headers: dict[str, str]) -> None:
        # As `put_object` does for small objects; `put_object` accepts no condition, and splits large objects.
        client: Any = self._client
        head = {"Content-Type": "application/x-paquebot-pack", **headers}
        client._execute("PUT", self._name, key, body=data, headers=head)

    def _is_own(self, key: str, data: bytes, uncertain: Exception) -> bool:
        """Whether an earlier try, whose answer was lost, wrote the object of this name. Raises `uncertain`, the error
        of that try, when this cannot be found out."""
        try:
            return get_part(self._client, self._name, key, 0, len(data) + 1, self._requests.timeout).data == data
        except _FAILURES as error:
            if isinstance(error, S3Error) and error.code == "AccessDenied":
                # This process may only write. No other process makes the same name: 80 random bits.
                _log.warning("object_already_written", key=key)
                return True
            raise uncertain from None

    def delete(self, keys: Sequence[str]) -> None:
        self._requests.retried("delete", self._delete, keys)

    def _delete(self, keys: Sequence[str]) -> None:
        errors = self._client.remove_objects(self._name, [DeleteObject(key) for key in keys])
        for error in errors:  # the request is sent while this is read
            raise BlobsUnavailable(f"delete: {error.code}")


def _exists_already(error: Exception) -> bool:
    return isinstance(error, S3Error) and error.code == "PreconditionFailed"
