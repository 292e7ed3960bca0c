"""`paquebot domain`, `account` and `alias` against a real service, each command in its own process."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paquebot.rpc import Identity
from tests.support.directory_service import ADMIN_TOKEN, directory_service
from tests.support.loopback import free_port

# Only these commands: importing the whole program would take most of the tests' time.
_PROGRAM = """
import typer
from paquebot.cli.admin.account import account_app
from paquebot.cli.admin.alias import alias_app
from paquebot.cli.admin.domain import domain_app
app = typer.Typer(pretty_exceptions_enable=False)
app.add_typer(domain_app, name="domain")
app.add_typer(account_app, name="account")
app.add_typer(alias_app, name="alias")
app()
"""


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


async def paquebot(*args: str, stdin: str = "", cwd: Path | None = None, **environ: str) -> Ended:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PAQUEBOT_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        *args,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**clean, "COLUMNS": "200", "NO_COLOR": "1", **environ},
        cwd=cwd,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 30.0)
    return Ended(process.returncode or 0, out.decode(), err.decode())


@dataclass(frozen=True, slots=True)
class Stack:
    """A data directory as `paquebot up` leaves it, and its service."""

    data: Path
    service: Any

    async def run(self, *args: str, stdin: str = "") -> Ended:
        return await paquebot(*args, "--data", str(self.data), stdin=stdin)


@pytest.fixture
async def stack(database: str, tmp_path: Path) -> AsyncIterator[Stack]:
    async with directory_service(database) as service:
        data = tmp_path / ".paquebot"
        data.mkdir()
        (data / "client.env").write_text(
            f"# a local stack\nPAQUEBOT_RECIPIENT_VALIDATION={service.target}\nPAQUEBOT_ADMIN_TOKEN={ADMIN_TOKEN}\n"
        )
        yield Stack(data, service)


async def test_domains(stack: Stack) -> None:
    made = await stack.run("domain", "add", "Example.ORG", "--quota", "1GiB", "--json")
    assert made.json["domain"] == "example.org"
    assert made.json["default_quota_bytes"] == 2**30
    await stack.run("domain", "add", "alias.example", "--alias-of", "example.org")
    changed = await stack.run("domain", "set", "example.org", "--catch-all", "x@y.z", "--disable", "--json")
    assert (changed.json["catch_all"], changed.json["enabled"]) == ("x@y.z", False)
    listed = await stack.run("domain", "list", "--json")
    assert [domain["domain"] for domain in listed.json] == ["alias.example", "example.org"]
    table = await stack.run("domain", "list")
    assert "example.org" in table.out
    assert "1 GiB" in table.out
    removed = await stack.run("domain", "remove", "alias.example", "--yes")
    assert removed.out == "domain alias.example removed\n"
    gone = await stack.run("domain", "show", "alias.example")
    assert (gone.code, gone.out, gone.err) == (1, "", "paquebot: there is no domain alias.example\n")


async def test_accounts_and_their_passwords(stack: Stack) -> None:
    await stack.service.domain("example.org")
    made = await stack.run(
        "account", "add", "alice@example.org", "--name", "Alice [b]", "--password-stdin", "--json", stdin="s3 cret\n"
    )
    assert made.json["name"] == "Alice [b]"
    identity = Identity(made.json["account_id"], "alice@example.org", made.json["quota_bytes"])
    login = stack.service.authentication.authenticate
    assert await login("alice@example.org", "s3 cret", "192.0.2.1", "imap") == identity
    again = await stack.run("account", "add", "ALICE@example.org", "--password-stdin", stdin="x\n")
    assert (again.code, again.err) == (1, "paquebot: account alice@example.org already exists\n")
    weak = await stack.run("account", "password", "alice@example.org", "--password-stdin", stdin="x\n")
    assert weak.code == 1
    assert weak.err.startswith("paquebot: the password has 1 character and must have at least 6: take a few words")
    await stack.run("account", "password", "alice@example.org", "--password-stdin", stdin="others\n")
    assert await login("alice@example.org", "others", "192.0.2.1", "imap") == identity
    changed = await stack.run("account", "set", "alice@example.org", "--quota", "5MB", "--json")
    assert changed.json["quota_bytes"] == 5_000_000
    assert (await stack.run("account", "list", "--domain", "example.org")).out.count("Alice [b]") == 1
    phone = await stack.run("account", "app-password", "add", "alice@example.org", "phone", "--json")
    assert isinstance(await login("alice@example.org", phone.json["password"], "192.0.2.1", "imap"), Identity)
    listed = await stack.run("account", "app-password", "list", "alice@example.org", "--json")
    assert [(entry["id"], entry["name"]) for entry in listed.json] == [(phone.json["id"], "phone")]
    assert listed.json[0]["last_used"]
    await stack.run("account", "app-password", "remove", "alice@example.org", phone.json["id"], "--yes")
    assert (await stack.run("account", "app-password", "list", "alice@example.org", "--json")).json == []
    removed = await stack.run("account", "remove", "alice@example.org", stdin="y\n")
    assert removed.code == 0
    assert (await stack.run("account", "list", "--json")).json == []


async def test_the_password_prompt_repeats_and_hides_it(stack: Stack) -> None:
    await stack.service.domain("example.org")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", _PROGRAM, "account", "add", "bob@example.org", "--data", str(stack.data)]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    shown = ""
    dialogue = (
        ("Password: ", "gehiem"),
        ("Repeat the password: ", "geheim"),
        ("Password: ", "geheim"),
        ("Repeat the password: ", "geheim"),
    )
    for prompt, answer in dialogue:  # the terminal prints the space after it turned the echo off
        shown += await asyncio.to_thread(_read_until, ours, prompt)
        os.write(ours, f"{answer}\n".encode())
    shown += await asyncio.to_thread(_read_until, ours, "created")
    assert await asyncio.wait_for(process.wait(), 20.0) == 0
    os.close(ours)
    assert "geheim" not in shown
    identity = await stack.service.authentication.authenticate("bob@example.org", "geheim", "", "imap")
    assert isinstance(identity, Identity)


def _read_until(terminal: int, text: str) -> str:
    """Return everything that the terminal shows up to `text`; 20 s without output are a failure."""
    shown = ""
    while text not in shown:
        readable, _, _ = select.select([terminal], [], [], 20.0)
        assert readable, f"{text!r} never came after {shown!r}"
        shown += os.read(terminal, 1024).decode()
    return shown


async def test_aliases(stack: Stack) -> None:
    await stack.service.domain("example.org")
    made = await stack.run("alias", "add", "team@example.org", "a@example.org", "b@elsewhere.example", "--json")
    assert made.json["targets"] == ["a@example.org", "b@elsewhere.example"]
    changed = await stack.run("alias", "set", "team@example.org", "--target", "c@x.y", "--target", "d@x.y", "--json")
    assert changed.json["targets"] == ["c@x.y", "d@x.y"]
    assert "c@x.y" in (await stack.run("alias", "show", "team@example.org")).out
    assert "team@example.org" in (await stack.run("alias", "list")).out
    assert (await stack.run("alias", "remove", "team@example.org", "--yes")).code == 0
    assert (await stack.run("alias", "list", "--json")).json == []


async def test_removing_asks_first(stack: Stack) -> None:
    await stack.service.domain("example.org")
    refused = await stack.run("domain", "remove", "example.org", stdin="n\n")
    assert refused.code == 1
    assert (await stack.run("domain", "show", "example.org", "--json")).json["enabled"]


async def test_where_the_settings_come_from(stack: Stack, tmp_path: Path) -> None:
    here = await paquebot("domain", "list", "--json", cwd=tmp_path)  # ./.paquebot/client.env
    assert here.json == []
    wrong = await paquebot("domain", "list", cwd=tmp_path, PAQUEBOT_ADMIN_TOKEN="wrong")
    assert (wrong.code, wrong.err) == (1, "paquebot: missing or wrong admin token\n")
    (tmp_path / "token").write_text(ADMIN_TOKEN + "\n")
    by_environment = await paquebot(
        "domain",
        "list",
        "--json",
        cwd=tmp_path / ".paquebot",
        PAQUEBOT_RECIPIENT_VALIDATION=stack.service.target,
        PAQUEBOT_ADMIN_TOKEN_FILE=str(tmp_path / "token"),
    )
    assert by_environment.json == []
    unset = await paquebot("domain", "list", cwd=tmp_path / ".paquebot")
    assert unset.code == 2
    assert unset.err.startswith("paquebot: no platform found: start one with `paquebot up`")
    assert unset.err.count("\n") == 1
    missing = await paquebot("domain", "list", "--data", str(tmp_path / "none"))
    assert missing.code == 2
    assert "cannot read" in missing.err
    target = f"127.0.0.1:{free_port()}"
    away = await paquebot("domain", "list", PAQUEBOT_ADMIN_TOKEN="x", PAQUEBOT_RECIPIENT_VALIDATION=target)
    assert away.code == 1
    assert away.err.startswith(f"paquebot: the directory at {target} does not answer")
    assert away.err.count("\n") == 1
