"""The demo domain and its two accounts, created through the administration service that operators use."""

import grpc

from paquebot.cli.up.environment import PlatformPlan
from paquebot.cli.up.layout import UpError
from paquebot.rpc import DirectoryClient, DirectoryRefused, DirectoryUnavailable, open_channel
from paquebot.runtime.engine_settings import DirectoryClientSettings
from paquebot.runtime.settings import load
from paquebot.v1.directory_pb2 import CreateAccountRequest, CreateDomainRequest, UpdateAccountRequest

DEMO_PASSWORD = "paquebot"  # noqa: S105 - the well-known password of the demo accounts
DEMO_SENDER = "alice"
DEMO_READER = "bob"


async def ensure_demo(plan: PlatformPlan) -> bool:
    """Create the domain and the accounts that are missing on a local platform; True: something was created.
    Raises UpError."""
    settings = load(DirectoryClientSettings, plan.client_environment())
    channel = open_channel(settings)
    try:
        client = DirectoryClient(channel, settings, plan.secrets.admin_token)
        return await ensure_accounts(client, plan.domain, DEMO_PASSWORD)
    except (DirectoryRefused, DirectoryUnavailable) as error:
        raise UpError(f"cannot create the demo domain: {error}") from error
    finally:
        await channel.close()


async def ensure_accounts(client: DirectoryClient, domain: str, password: str, *, reset: bool = False) -> bool:
    """Create the domain with alice and bob where missing; True: something was created. With `reset`, accounts that
    exist get the password as well. Raises DirectoryRefused, DirectoryUnavailable."""
    created = await _ensure_domain(client, domain)
    for name in (DEMO_SENDER, DEMO_READER):
        new = await _ensure_account(client, f"{name}@{domain}", name.title(), password)
        if reset and not new:
            change = UpdateAccountRequest(address=f"{name}@{domain}", password=password)
            await client.ask(client.stub.UpdateAccount, change)
        created = new or created
    return created


async def _ensure_domain(client: DirectoryClient, name: str) -> bool:
    try:
        await client.ask(client.stub.CreateDomain, CreateDomainRequest(name=name))
    except DirectoryRefused as refused:
        return _known_already(refused)
    return True


async def _ensure_account(client: DirectoryClient, address: str, display_name: str, password: str) -> bool:
    request = CreateAccountRequest(address=address, password=password, display_name=display_name)
    try:
        await client.ask(client.stub.CreateAccount, request)
    except DirectoryRefused as refused:
        return _known_already(refused)
    return True


def _known_already(refused: DirectoryRefused) -> bool:
    if refused.code is not grpc.StatusCode.ALREADY_EXISTS:
        raise refused
    return False
