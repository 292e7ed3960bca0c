"""The filter of docs/failed-logins.md matches the line that a service logs, and finds the address in it."""

from __future__ import annotations

import io
import json
import logging
import re
from pathlib import Path

from paquebot.observability import log
from tests.support.directory_service import directory_service

PAGE = Path(__file__).parents[2] / "docs" / "failed-logins.md"


async def test_the_documented_filter_finds_the_client_of_a_failed_login(database: str) -> None:
    [failregex] = re.findall(r"^failregex = (.+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    [datepattern] = re.findall(r"^datepattern = (.+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    written = io.StringIO()
    log.set_up("recipient_validation", stream=written)
    try:
        async with directory_service(database) as service:
            await service.domain("example.org")
            await service.account("alice@example.org")
            for name, client in (("alice@example.org", "192.0.2.1"), ("my password", "2001:db8::1")):
                await service.authentication.authenticate(name, "guess", client, "imap")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    lines = [line for line in written.getvalue().splitlines() if json.loads(line)["event"] == "login_failed"]
    host = re.compile(failregex.replace("<HOST>", r"(?P<host>[0-9A-Fa-f.:]+)"))
    date = re.compile(re.sub(r"%%[YmdHMS]", r"\\d+", datepattern))
    assert [found and found["host"] for found in map(host.search, lines)] == ["192.0.2.1", "2001:db8::1"]
    assert all(date.search(line) for line in lines)
    assert "my password" not in written.getvalue()
    example = json.loads(re.findall(r'^\{"time".+$', PAGE.read_text("utf-8"), re.MULTILINE)[0])
    assert list(json.loads(lines[0])) == list(example)
