"""What a client without any credential gets from a listener. Each function lists it; nothing: an empty list.

`python - HOST NAME=PORT...` tries the listeners named and prints {NAME: what was got} as JSON; a NAME is a key of
`TRIES`. The tests of a local platform import the functions.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import sys
from collections.abc import Callable, Iterable, Iterator

import asyncpg
import grpc

SECONDS = 10.0
ACCESS_KEY, SECRET_KEY = "STRANGERSKEY", "strangers-secret-key"
_ROLES = ("postgres", "paquebot", "paquebot_recipient_validation", "paquebot_delivery", "paquebot_imap")


def _field(number: int, value: bytes) -> bytes:
    """A short field of a protobuf message, of wire type LEN."""
    return bytes([number << 3 | 2, len(value)]) + value


# weed/pb/iam.proto: an identity with a key of the stranger's that may do everything.
_CREDENTIAL = _field(1, ACCESS_KEY.encode()) + _field(2, SECRET_KEY.encode()) + _field(3, b"Active")
_IDENTITY = _field(1, _field(1, b"stranger") + _field(2, _CREDENTIAL) + _field(3, b"Admin"))
_S3_CALLS = (
    ("/messaging_pb.SeaweedS3IamCache/PutIdentity", _IDENTITY),
    ("/messaging_pb.SeaweedS3IamCache/ListPolicies", b""),
)
_LIST_ROOT = _field(1, b"/")
_FILER_CALLS = (
    ("/filer_pb.SeaweedFiler/GetFilerConfiguration", b""),
    ("/filer_pb.SeaweedFiler/ListEntries", _LIST_ROOT),
    ("/iam_pb.SeaweedIdentityAccessManagement/ListUsers", b""),
)
_MASTER_CALLS = (("/master_pb.Seaweed/Assign", b"\x08\x01"), ("/master_pb.Seaweed/VolumeList", b""))
_DIRECTORY_CALLS = (
    ("/paquebot.v1.Directory/ListDomains", b""),
    ("/paquebot.v1.RecipientValidation/Validate", _field(1, b"bob@paquebot.test")),
    ("/paquebot.v1.Authentication/Authenticate", _field(1, b"bob@paquebot.test") + _field(2, b"paquebot")),
)
_VOLUME_CALLS = (("/volume_server_pb.VolumeServer/VolumeServerStatus", b""),)


def over_http(host: str, port: int, *paths: str) -> list[str]:
    """Pages got over HTTP or over TLS without a certificate. A server that asks for TLS says 400 to plain HTTP."""
    return [f"{scheme} {verb} {path}: {status}" for scheme, verb, path, status in _pages(host, port, paths or ("/",))]


def _pages(host: str, port: int, paths: Iterable[str]) -> Iterator[tuple[str, str, str, int]]:
    for path in paths:
        for scheme in ("http", "https"):
            for verb in ("GET", "POST", "DELETE"):
                status = _status(host, port, scheme, verb, path)
                if status not in (None, 400):
                    yield scheme, verb, path, status


def _status(host: str, port: int, scheme: str, verb: str, path: str) -> int | None:
    connection: http.client.HTTPConnection
    if scheme == "https":
        connection = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=unverified())
    else:
        connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    with contextlib.closing(connection):
        try:
            connection.request(verb, path, body=b"x" if verb == "POST" else None)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None


def unverified() -> ssl.SSLContext:
    """TLS with any server that answers."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def over_grpc(target: str, calls: Iterable[tuple[str, bytes]]) -> list[str]:
    """Calls that got an answer, or a refusal that a handler made, in clear and over TLS. `target` as gRPC names it."""
    got = []
    for name, open_channel in _channels(target):
        with open_channel() as channel:
            for method, request in calls:
                code = _code(channel, method, request)
                if code is not grpc.StatusCode.UNAVAILABLE:
                    got.append(f"{name} {method}: {code.name}")
    return got


def _channels(target: str) -> Iterator[tuple[str, Callable[[], grpc.Channel]]]:
    yield "clear", lambda: grpc.insecure_channel(target)
    host, _, port = target.rpartition(":")
    if host in ("", "unix"):
        return  # the certificate cannot be fetched beforehand
    try:
        authority = ssl.get_server_certificate((host, int(port)), timeout=SECONDS)
    except OSError:
        return
    yield "TLS", lambda: grpc.secure_channel(target, grpc.ssl_channel_credentials(authority.encode()))


def _code(channel: grpc.Channel, method: str, request: bytes) -> grpc.StatusCode:
    ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        method, request_serializer=None, response_deserializer=None
    )
    try:
        ask(request, timeout=SECONDS)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def over_nats(host: str, port: int) -> list[str]:
    """Whether a client without a login may ask the server anything."""
    with socket.create_connection((host, port), SECONDS) as connection:
        connection.settimeout(SECONDS)
        connection.sendall(b'CONNECT {"verbose":true}\r\nSUB > 1\r\nPING\r\n')
        answer = b""
        while b"-ERR" not in answer and b"PONG" not in answer:
            part = connection.recv(4096)
            if not part:
                break
            answer += part
    return ["SUB >"] if b"PONG" in answer else []


def over_postgres(host: str, port: int) -> list[str]:
    """Roles that come in without a password or with one that anybody would try. `host` may be a socket's directory."""
    return asyncio.run(_roles(host, port))


async def _roles(host: str, port: int) -> list[str]:
    got = []
    for role in _ROLES:
        for password in ("", role, "paquebot", "postgres"):
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection = await asyncpg.connect(
                    host=host, port=port, user=role, password=password, database="postgres", timeout=SECONDS, ssl=False
                )
                got.append(f"{role} with {password!r}")
                await connection.close()
    return got


def over_s3(host: str, port: int, *keys: str) -> list[str]:
    """What the S3 port does for a request without a signature."""
    paths = ("/", "/paquebot", "/paquebot/stranger", *(f"/paquebot/{key}" for key in keys))
    return [
        f"{verb} {path}: {status}"
        for path in paths
        for verb in ("GET", "PUT", "POST", "DELETE")
        if (status := _status(host, port, "http", verb, path)) is not None and status < 400
    ]


def reached(host: str, port: int) -> list[str]:
    """Whether a connection is made at all, for what should be bound to the pod's own loopback."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), SECONDS):
        return ["a connection"]
    return []


TRIES: dict[str, Callable[[str, int], list[str]]] = {
    "nats": over_nats,
    "nats_monitor": reached,
    "s3": over_s3,
    "s3_grpc": lambda host, port: over_grpc(f"{host}:{port}", _S3_CALLS),
    "s3_filer": lambda host, port: over_http(host, port, "/", "/buckets/", "/etc/", "/?proxyChunkId=1,01"),
    "s3_filer_grpc": lambda host, port: over_grpc(f"{host}:{port}", _FILER_CALLS),
    "s3_master": lambda host, port: over_http(host, port, "/", "/dir/assign", "/dir/status", "/vol/status", "/submit"),
    "s3_master_grpc": lambda host, port: over_grpc(f"{host}:{port}", _MASTER_CALLS),
    "s3_volume": lambda host, port: over_http(host, port, "/", "/status", "/1,01"),
    "s3_volume_grpc": lambda host, port: over_grpc(f"{host}:{port}", _VOLUME_CALLS),
    "postgres": over_postgres,
    "grpc": lambda host, port: over_grpc(f"{host}:{port}", _DIRECTORY_CALLS),
}
"""By the name of the port, as in `paquebot.cli.engines.ports.EnginePorts`; `grpc` is recipient_validation's."""

GRPC_CALLS = (*_S3_CALLS, *_FILER_CALLS, *_MASTER_CALLS, *_VOLUME_CALLS)


if __name__ == "__main__":
    asked = [(name, int(port)) for name, _, port in (word.partition("=") for word in sys.argv[2:])]
    print(json.dumps({name: TRIES[name](sys.argv[1], port) for name, port in asked}))
