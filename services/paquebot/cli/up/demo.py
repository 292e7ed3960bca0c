"""The demo domain and its two accounts, made through the same administration service that operators use."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from paquebot.cli.up.environment import Plan
from paquebot.cli.up.layout import UpError
from paquebot.cli.up.roundtrip import PASSWORD, READER, SENDER
from paquebot.rpc import open_channel
from paquebot.runtime.engines import DirectoryClientSettings
from paquebot.runtime.settings import load
from paquebot.v1.directory_pb2 import CreateAccountRequest, CreateDomainRequest
from paquebot.v1.directory_pb2_grpc import DirectoryStub

_TIMEOUT_SECONDS = 15.0


async def ensure_demo(plan: Plan) -> bool:
    """Make the domain and the accounts that are missing; True: something was made. Raises UpError."""
    channel = open_channel(load(DirectoryClientSettings, plan.client_environment()))
    token = (("authorization", f"Bearer {plan.secrets.admin_token}"),)
    try:
        stub: Any = DirectoryStub(channel)
        made = [await _create(stub.CreateDomain, CreateDomainRequest(name=plan.domain), token)]
        for name in (SENDER, READER):
            request = CreateAccountRequest(
                address=f"{name}@{plan.domain}", password=PASSWORD, display_name=name.title()
            )
            made.append(await _create(stub.CreateAccount, request, token))
        return any(made)
    finally:
        await channel.close()


async def _create(call: Callable[..., Awaitable[Any]], request: Any, token: tuple[tuple[str, str], ...]) -> bool:
    try:
        await call(request, metadata=token, timeout=_TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.ALREADY_EXISTS:
            return False
        raise UpError(f"the demo domain could not be made: {error.details()}") from error
    return True
