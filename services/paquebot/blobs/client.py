"""The `minio` client, with timeouts and without retries of its own."""

from typing import Any, cast
from urllib.parse import urlsplit

import minio
import urllib3

from paquebot.runtime.engine_settings import S3Settings


def open_client(settings: S3Settings) -> tuple[minio.Minio, urllib3.PoolManager]:
    """A client, and the pool of its connections."""
    address = urlsplit(settings.endpoint)
    connect = min(5.0, settings.timeout / 4)
    pool = urllib3.PoolManager(
        maxsize=settings.threads,
        timeout=urllib3.Timeout(connect=connect, read=settings.timeout),
        retries=urllib3.Retry(connect=0, read=0, status=0, other=0, redirect=2),  # `Requests` retries
        cert_reqs="CERT_REQUIRED",
        ca_certs=str(settings.ca) if settings.ca else None,
    )
    client: Any = minio.Minio(
        address.netloc,
        access_key=settings.access_key or None,
        secret_key=str(settings.secret_key) or None,
        region=settings.region,
        secure=address.scheme == "https",
        http_client=pool,
    )
    if settings.path_style:
        client.disable_virtual_style_endpoint()
    else:
        client.enable_virtual_style_endpoint()
    return cast(minio.Minio, client), pool
