"""A channel whose certificate changes: new calls use the new one, and calls under way are answered on the old one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc.aio import Channel, secure_channel

from paquebot.rpc.credentials import ServerIdentity, reloaded_pems
from paquebot.rpc.renewed import RenewedChannel
from paquebot.runtime.engine_settings import GrpcTlsSettings
from paquebot.runtime.settings import load
from tests.support.grpc_certificates import Authority

METHOD = "/test.Service/Ask"


class Answering(grpc.GenericRpcHandler):
    """Answers with the serial number of the caller's certificate; a request `wait` only after `release`."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.release = asyncio.Event()

    def service(self, handler_call_details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, request: bytes, context: Any) -> bytes:
        if request == b"wait":
            self.waiting.set()
            await self.release.wait()
        return bytes(context.auth_context()["x509_pem_cert"][0])


async def test_calls_under_way_finish_on_their_channel(tmp_path: Path) -> None:
    authority = Authority.make()
    identity = ServerIdentity(load(GrpcTlsSettings, authority.issue(tmp_path / "server", "localhost")))
    answering = Answering()
    server = grpc.aio.server(handlers=(answering,))
    port = server.add_secure_port("localhost:0", identity.credentials())
    await server.start()
    pems = reloaded_pems(load(GrpcTlsSettings, authority.service(tmp_path / "client", "imap")))
    now = 0.0
    made: list[Channel] = []

    def make(credentials: grpc.ChannelCredentials) -> Channel:
        made.append(secure_channel(f"localhost:{port}", credentials))
        return made[-1]

    channel = RenewedChannel(pems, make, clock=lambda: now)
    ask = channel.unary_unary(METHOD)
    first = (tmp_path / "client" / "tls.crt").read_bytes()
    async with asyncio.timeout(30.0):
        lasting = asyncio.ensure_future(_asked(ask, b"wait"))
        await answering.waiting.wait()
        authority.service(tmp_path / "client", "imap")
        second = (tmp_path / "client" / "tls.crt").read_bytes()
        assert await ask(b"") == first  # it does not check the files for each call
        now = 1.0
        assert await ask(b"") == second
        assert not lasting.done()
        answering.release.set()
        assert await lasting == first
        now = 2.0
        assert await ask(b"") == second
        assert len(made) == 2
        await channel.close()
    with pytest.raises(grpc.aio.UsageError):
        await ask(b"")
    await server.stop(0)


async def _asked(ask: Any, request: bytes) -> bytes:
    return bytes(await ask(request))
