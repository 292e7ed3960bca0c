"""Run in a pod, with its own S3 key: try each action on the bucket; argument: a key that exists. Printed as JSON."""

import io
import json
import os
import sys
from collections.abc import Callable
from urllib.parse import urlsplit

from minio import Minio
from minio.error import S3Error

endpoint = urlsplit(os.environ["PAQUEBOT_S3_ENDPOINT"])
client = Minio(
    endpoint.netloc,
    access_key=os.environ["PAQUEBOT_S3_ACCESS_KEY"],
    secret_key=os.environ["PAQUEBOT_S3_SECRET_KEY"],
    secure=endpoint.scheme == "https",
    region="us-east-1",
)
bucket = os.environ.get("PAQUEBOT_S3_BUCKET", "paquebot")


def tried(action: Callable[[], object]) -> str:
    try:
        action()
    except S3Error as error:
        return str(error.code)
    return "done"


print(
    json.dumps(
        {
            "list": tried(lambda: list(client.list_objects(bucket, recursive=True))),
            "read": tried(lambda: client.get_object(bucket, sys.argv[1]).read()),
            "write": tried(lambda: client.put_object(bucket, "probe/object", io.BytesIO(b"x"), 1)),
            "delete": tried(lambda: client.remove_object(bucket, "probe/object")),
            "make bucket": tried(lambda: client.make_bucket("another-bucket")),
            "other bucket": tried(lambda: list(client.list_objects("another-bucket"))),
        }
    )
)
