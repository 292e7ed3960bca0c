r"""Plays every script of tests/dialogues/smtp with the real smtp_ingress.

Listeners are `mx`, `submission` and `submissions`. Beside the runner's own steps, a script can have:

    assert queued N                    N messages were stored and queued since the script began
    assert nothing was queued
    assert message contains TEXT       the last stored message, as it is in the bucket; with the runner's escapes
    assert message lacks TEXT
    assert message ends TEXT
    assert message has N octets of content   after the header
    assert envelope FIELD VALUE        of the last message's stored envelope; enums by name, `empty` for empty
    assert recipients A B ...          its recipients: addresses of accounts, forward-paths of remote recipients
    assert local ADDRESS FIELD VALUE   a field of a recipient; lists joined by commas
    assert remote ADDRESS FIELD VALUE
    do drain                           the process begins its drain
    do add ADDRESS                     an account, with the password of all others
    do disable [unannounced] ADDRESS   the account is disabled; unannounced: the hint is lost
    do change password ADDRESS

`{account}`, `{password}` and `{plain}` (the base64 of SASL PLAIN) are those of alice@paquebot.test.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from google.protobuf.message import Message

from paquebot.smtp_ingress.server import SmtpServer
from paquebot.smtp_ingress.state import Role
from tests.dialogues.dialogue import Endpoint, Script, play, scripts, unescaped, with_login
from tests.support.smtp_world import PASSWORD, QueuedMessage, SmtpStack

FOLDER = Path(__file__).parent / "smtp"


class SmtpDialogue:
    """The world of a script."""

    def __init__(self, stack: SmtpStack, server: SmtpServer, after: int) -> None:
        self._stack = stack
        self._server = server
        self._after = after
        self._tasks: list[asyncio.Task[None]] = []

    def endpoint(self, listener: str) -> Endpoint:
        role = Role(listener)
        return Endpoint("127.0.0.1", self._server.ports(role)[0], tls=role is Role.SUBMISSIONS)

    async def perform(self, step: str) -> None:
        match step.split():
            case ["assert", "queued", count]:
                queued = await self._stack.queued(self._after)
                assert len(queued) == int(count), f"{len(queued)} were queued"
            case ["assert", "nothing", "was", "queued"]:
                assert not await self._stack.queued(self._after)
            case ["assert", "message", how, *_]:
                self._check_message(await self._last(), how, step.split(" ", 3)[3])
            case ["assert", "envelope", field, value]:
                _check_field((await self._last()).envelope, field, value)
            case ["assert", "recipients", *addresses]:
                envelope = (await self._last()).envelope
                found = [one.address for one in envelope.local] + [one.forward_path for one in envelope.remote]
                assert sorted(found) == sorted(addresses), f"it goes to {found}"
            case ["assert", "local", address, field, value]:
                recipients = (await self._last()).envelope.local
                _check_field(next(one for one in recipients if one.address == address), field, value)
            case ["assert", "remote", address, field, value]:
                remotes = (await self._last()).envelope.remote
                _check_field(next(one for one in remotes if one.forward_path == address), field, value)
            case ["do", "add", address]:
                await self._stack.directory.account(address, PASSWORD)
            case ["do", *change, address] if await self._stack.directory.change(change, address):
                pass
            case ["do", "drain"]:
                self._tasks.append(asyncio.create_task(self._server.drain(10.0)))
                await asyncio.sleep(0)  # let it begin
            case _:
                raise AssertionError(f"unknown step {step!r}")

    async def _last(self) -> QueuedMessage:
        queued = await self._stack.queued(self._after)
        assert queued, "nothing was queued"
        return queued[-1]

    def _check_message(self, message: QueuedMessage, how: str, text: str) -> None:
        wanted = unescaped(text).encode("utf-8", "surrogateescape")
        match how:
            case "contains":
                assert wanted in message.content, f"the message is {message.content!r}"
            case "lacks":
                assert wanted not in message.content, f"the message is {message.content!r}"
            case "ends":
                assert message.content.endswith(wanted), f"the message is {message.content!r}"
            case "has":
                size = len(message.content.partition(b"\r\n\r\n")[2])
                assert size == int(text.split()[0]), f"the content has {size} bytes"
            case _:
                raise AssertionError(f"unknown check {how!r}")

    async def end(self) -> None:
        await asyncio.gather(*self._tasks)


def _check_field(message: Message, path: str, wanted: str) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        message = getattr(message, parent)
    field = message.DESCRIPTOR.fields_by_name[name]
    value = getattr(message, name)
    values = list(value) if field.is_repeated else [value]
    if field.enum_type is not None:
        values = [field.enum_type.values_by_number[number].name for number in values]
    found = ",".join(str(item) for item in values) or "empty"
    assert found == wanted, f"{path} is {found}"


@pytest.mark.parametrize("script", scripts(FOLDER))
async def test_smtp_dialogue(script: Script, smtp_stack: SmtpStack) -> None:
    after = await smtp_stack.last_sequence()
    async with smtp_stack.serving(**script.settings) as server:
        world = SmtpDialogue(smtp_stack, server, after)
        await play(with_login(script, "alice@paquebot.test", PASSWORD), world)
        await world.end()
