"""Requests to S3: each is counted, and repeated where that may help."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import urllib3
from minio.error import MinioException

from paquebot.blobs.errors import is_transient
from paquebot.observability.metrics import counter

T = TypeVar("T")

CALLS = ("put", "get", "stat", "list", "delete", "bucket_exists", "make_bucket")
REQUESTS = counter(
    "paquebot_s3_requests_total",
    "Requests to S3, retries included: what a provider bills; a call is one request unless it is retried",
    {"call": CALLS},
)
_REQUEST = {call: REQUESTS.labels(call) for call in CALLS}
_PAUSES_SECONDS = (0.1, 0.2)


class Requests:
    """`timeout`: the maximum time of one request, in seconds."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout

    def retried(self, call: str, function: Callable[..., T], *args: Any) -> T:
        """Retries a lost connection or a 5xx, but only within the first quarter of the timeout: a slow failure must not
        occupy its thread for several times S3_TIMEOUT."""
        start = time.monotonic()
        for pause in _PAUSES_SECONDS:
            _REQUEST[call].inc()
            try:
                return function(*args)
            except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
                if time.monotonic() - start > self.timeout / 4 or not is_transient(error):
                    raise
            time.sleep(pause)
        _REQUEST[call].inc()
        return function(*args)
