"""The demo's accounts: the command creates missing ones, and sets the password of existing ones only on request."""

from __future__ import annotations

import asyncio
import os
import sys

from paquebot.cli.demo.accounts import ensure_accounts
from paquebot.rpc import Identity, InvalidCredentials
from tests.support.directory_service import ADMIN_TOKEN, directory_service

KNOWN, DRAWN = "the password of an earlier chart", "a password that was drawn"


async def test_reset_sets_the_password_of_existing_accounts(database: str) -> None:
    async with directory_service(database, PAQUEBOT_GUEST_DOMAINS="paquebot.test") as service:

        async def login(password: str) -> object:
            return await service.authentication.authenticate("alice@paquebot.test", password, "192.0.2.1", "smtp")

        assert await ensure_accounts(service.admin, "paquebot.test", KNOWN)
        assert not await ensure_accounts(service.admin, "paquebot.test", DRAWN)
        assert isinstance(await login(KNOWN), Identity)
        assert not await ensure_accounts(service.admin, "paquebot.test", DRAWN, reset=True)
        assert isinstance(await login(KNOWN), InvalidCredentials)
        found = await login(DRAWN)
        assert isinstance(found, Identity)
        assert (found.local_only, found.recipients_per_hour) == (True, 200)


async def test_an_account_of_another_domain_is_no_guest(database: str) -> None:
    async with directory_service(database, PAQUEBOT_GUEST_DOMAINS="guests.test,Other.Test") as service:
        await service.domain("paquebot.test")
        await service.domain("other.test")
        for address, guest in (("alice@paquebot.test", False), ("bob@other.test", True)):
            await service.account(address, KNOWN)
            found = await service.authentication.authenticate(address, KNOWN, "192.0.2.1", "smtp")
            assert isinstance(found, Identity)
            assert found.local_only is guest


async def test_the_command_generates_a_password(database: str) -> None:
    async with directory_service(database) as service:
        environ = {"PAQUEBOT_RECIPIENT_VALIDATION": service.target, "PAQUEBOT_ADMIN_TOKEN": ADMIN_TOKEN}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "paquebot", "demo", "--wait", "20s"),
            stdout=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], **environ},
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        drawn = output.decode().strip().rpartition(" ")[2]
        assert len(drawn) >= 20
        for password, kind in ((drawn, Identity), ("paquebot", InvalidCredentials)):
            found = await service.authentication.authenticate("bob@paquebot.test", password, "192.0.2.1", "imap")
            assert isinstance(found, kind)
