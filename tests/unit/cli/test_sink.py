"""`paquebot sink` on a real socket, with Python's smtplib as its client."""

from __future__ import annotations

import contextlib
import json
import re
import smtplib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paquebot.cli.sink.record import Recorder
from paquebot.cli.sink.rules import RecipientRules
from paquebot.cli.sink.server import Sink, SinkOptions
from paquebot.runtime.settings import Listen
from tests.support.manual_clock import ManualClock

CONTENT = "Subject: =?utf-8?Q?Caf=C3=A9?=\r\nX-Mark: 7\r\n\r\n.\r\n..two dots\r\nß\r\n".encode()
SENDER, RECIPIENT = "alice@example.org", "carol@example.net"


@contextlib.contextmanager
def running(
    rules: RecipientRules | None = None,
    recorder: Recorder | None = None,
    *,
    max_size: int = 10_000,
    count: int = 0,
) -> Iterator[tuple[int, Sink, threading.Thread]]:
    """A sink on a free port: (port, sink, its thread)."""
    options = SinkOptions(Listen("127.0.0.1", 0), "example.net", max_size, count)
    sink = Sink(options, rules or RecipientRules(), recorder or Recorder(None, as_json=False, headers=()))
    port = sink.open().port
    thread = threading.Thread(target=sink.serve)
    thread.start()
    try:
        yield port, sink, thread
    finally:
        with contextlib.suppress(RuntimeError):
            sink.loop.call_soon_threadsafe(sink.stop)
        thread.join(10)
        sink.close()


def client(port: int) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", port, local_hostname="client.example", timeout=10)


def send(port: int, *recipients: str, content: bytes = CONTENT, sender: str = SENDER) -> dict[str, tuple[int, bytes]]:
    """Raises what smtplib raises; returns the refused recipients."""
    with client(port) as connection:
        return connection.sendmail(sender, recipients or [RECIPIENT], content, ["BODY=8BITMIME"])


def test_a_message_is_one_line_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    with running() as (port, _, _):
        assert send(port, RECIPIENT, "dan@example.net") == {}
    line = rf"\d\d:\d\d:\d\d  <{SENDER}> to <{RECIPIENT}>, <dan@example.net>  {len(CONTENT)} bytes  Subject: Café\n"
    assert re.fullmatch(line, capsys.readouterr().out)


def test_a_message_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    with running(recorder=Recorder(None, as_json=True, headers=["X-Mark", "X-Other"])) as (port, _, _):
        send(port)
        send(port, sender="", content=b"X-Mark: 8\r\n\r\n")
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first.pop("at").endswith("Z")
    assert first == {
        "client": "127.0.0.1",
        "helo": "client.example",
        "reverse_path": SENDER,
        "recipients": [RECIPIENT],
        "mail_options": [f"SIZE={len(CONTENT)}", "BODY=8BITMIME"],
        "rcpt_options": [],
        "size": len(CONTENT),
        "subject": "Café",
        "headers": {"x-mark": "7", "x-other": None},
        "file": None,
    }
    assert (second["reverse_path"], second["subject"]) == ("", None)


def test_a_directory_has_each_message_byte_for_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(recorder=Recorder(tmp_path, as_json=True, headers=())) as (port, _, _):
        send(port)
        send(port, content=b"Subject: second\r\n\r\n")
    files = sorted(tmp_path.iterdir())
    assert [file.read_bytes() for file in files] == [CONTENT, b"Subject: second\r\n\r\n"]
    assert {file.suffix for file in files} == {".eml"}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()] == [str(file) for file in files]


def test_a_message_that_cannot_be_kept_is_deferred(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(recorder=Recorder(tmp_path / "missing", as_json=False, headers=())) as (port, sink, _):
        with pytest.raises(smtplib.SMTPDataError) as refused:
            send(port)
    assert refused.value.smtp_code == 452
    assert sink.handler.received == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "cannot write the message: " in shown.err


def test_refused_and_deferred_recipients(capsys: pytest.CaptureFixture[str]) -> None:
    rules = RecipientRules(refused=["No@example.net"], deferred=["later@example.net"])
    with running(rules) as (port, _, _):
        refused = send(port, RECIPIENT, "no@EXAMPLE.net", "later@example.net")
        again = send(port, RECIPIENT, "later@example.net")
    assert {address: code for address, (code, _) in refused.items()} == {
        "no@EXAMPLE.net": 550,
        "later@example.net": 451,
    }
    assert again["later@example.net"][0] == 451
    shown = capsys.readouterr()
    assert shown.out.count(f"to <{RECIPIENT}>  ") == 2
    assert f"<{SENDER}> to <no@EXAMPLE.net>  550 5.1.1 No such mailbox\n" in shown.err


def test_mail_for_other_domains_is_refused() -> None:
    with running(RecipientRules(domains=["Example.NET"])) as (port, _, _):
        refused = send(port, RECIPIENT, "bob@example.org", "bob@sub.example.net")
    assert {address: code for address, (code, _) in refused.items()} == {
        "bob@example.org": 550,
        "bob@sub.example.net": 550,
    }


def test_a_greylisted_pair_is_accepted_after_its_time() -> None:
    clock = ManualClock()
    with running(RecipientRules(greylist=30, now=clock)) as (port, _, _):
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            send(port)
        clock.now += 29
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            send(port)
        clock.now += 1
        assert send(port) == {}
        assert send(port) == {}
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            send(port, sender="other@example.org")
    assert refused.value.recipients[RECIPIENT] == (451, b"4.7.1 Greylisted, try again in 30 s")


def test_a_message_above_the_maximum_size_is_refused_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with running(max_size=100) as (port, _, _):
        with client(port) as connection:
            connection.ehlo()
            assert connection.esmtp_features["size"] == "100"
            with pytest.raises(smtplib.SMTPSenderRefused) as declared:
                connection.sendmail(SENDER, [RECIPIENT], b"x" * 101)
            connection.mail(SENDER)
            connection.rcpt(RECIPIENT)
            code, _ = connection.data(b"y\r\n" * 50)
    assert (declared.value.smtp_code, code) == (552, 552)
    assert capsys.readouterr().out == ""


def test_it_ends_after_its_last_message(capsys: pytest.CaptureFixture[str]) -> None:
    with running(count=2) as (port, sink, thread):
        send(port)
        with client(port) as connection:
            connection.sendmail(SENDER, [RECIPIENT], CONTENT)
            assert connection.mail(SENDER)[0] == 421
        thread.join(10)
        assert not thread.is_alive()
        with pytest.raises(OSError, match="refused"):
            client(port)
    assert sink.handler.received == 2
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.slow
def test_it_closes_connections_that_stay_open() -> None:
    with running() as (port, sink, thread), socket.create_connection(("127.0.0.1", port), 10) as silent:
        assert silent.recv(1000).startswith(b"220 example.net ")
        sink.loop.call_soon_threadsafe(sink.stop)
        thread.join(10)
        assert not thread.is_alive()
        assert silent.recv(1000) == b""


def test_the_messages_under_way_are_bounded() -> None:
    """One maximum message is all of the memory here."""
    with running(max_size=256 * 2**20) as (port, _, _), client(port) as first, client(port) as second:
        assert [connection.ehlo()[0] for connection in (first, second)] == [250, 250]
        assert first.mail(SENDER)[0] == 250
        assert second.mail(SENDER)[0] == 451
        first.rset()
        assert second.mail(SENDER)[0] == 250
        second.close()
        assert _until(lambda: first.mail(SENDER)[0] == 250)


@pytest.mark.slow
def test_the_recipients_of_a_message_are_bounded() -> None:
    with running() as (port, _, _), client(port) as connection:
        connection.ehlo()
        connection.mail(SENDER)
        codes = [connection.rcpt(f"r{number}@example.net")[0] for number in range(1001)]
    assert set(codes[:1000]) == {250}
    assert codes[1000] == 452


class _BrokenRecorder(Recorder):
    def __init__(self, error: Exception) -> None:
        super().__init__(None, as_json=False, headers=())
        self._error = error

    def show(self, *_: Any) -> None:
        raise self._error


def test_it_ends_when_it_cannot_print() -> None:
    with running(recorder=_BrokenRecorder(BrokenPipeError())) as (port, sink, thread):
        with pytest.raises(smtplib.SMTPDataError) as refused:
            send(port)
        thread.join(10)
        assert not thread.is_alive()
    assert refused.value.smtp_code == 451
    assert isinstance(sink.handler.fault, BrokenPipeError)


def test_a_fault_is_a_temporary_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with running(recorder=_BrokenRecorder(ValueError("of the code"))) as (port, _, _):
        with pytest.raises(smtplib.SMTPDataError) as refused:
            send(port)
    assert refused.value.smtp_code == 451
    assert "ValueError: of the code" in capsys.readouterr().err


def test_the_terminal_gets_no_escape_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    with running() as (port, _, _):
        send(port, content=b"Subject: a\x1b[2Jb\r\n\r\n")
    assert "Subject: a\N{REPLACEMENT CHARACTER}[2Jb\n" in capsys.readouterr().out


def _until(done: Callable[[], bool]) -> bool:
    """The server learns of a closed connection by itself, in its own time."""
    return any(done() for _ in range(1000))
