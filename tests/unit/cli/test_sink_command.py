"""`paquebot sink` as a command: its arguments, its help and its end."""

from __future__ import annotations

import json
import signal
import smtplib
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paquebot.cli.app import app
from tests.support.sink_process import sink_process


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--listen 0.0.0.0:2526", "other machines can reach 0.0.0.0:2526: permit it with --anywhere"),
        ("--listen [::]:2526", "other machines can reach [::]:2526: permit it with --anywhere"),
        ("--listen example.net:25", "'example.net:25' must be an IP address and a port, such as 127.0.0.1:2526"),
        ("--listen 2526", "'2526' must be an IP address and a port, such as 127.0.0.1:2526"),
        ("--refuse carol", "'carol' must be an address such as carol@example.net"),
        ("--defer @example.net", "'@example.net' must be an address such as carol@example.net"),
        ("--domain carol@example.net", "'carol@example.net' must be a domain such as example.net"),
        ("--refuse a@b.test --defer A@b.test", "a@b.test must not be both refused and deferred"),
        ("--header X-Mark", "--header needs --json"),
        ("--greylist soon", "'soon' is not a duration such as 30s, 5m or 4h"),
        ("--max-size big", "'big' is not a size such as 64KiB or 25MB"),
        ("--max-size 0", "must be above zero"),
        ("--count -1", "Invalid value for '--count': "),
    ],
)
def test_wrong_use_is_one_sentence(arguments: str, sentence: str) -> None:
    ended = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["sink", *arguments.split()])
    assert ended.exit_code == 2
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr


def test_help_names_every_option() -> None:
    shown = CliRunner(env={"COLUMNS": "120"}).invoke(app, ["sink", "--help"]).stdout
    for option in ("listen", "anywhere", "domain", "directory", "json", "header", "refuse", "defer", "greylist"):
        assert f"--{option} " in shown
    assert "PAQUEBOT_RELAY_ROUTES='example.net=[127.0.0.1]:2526' paquebot up" in shown


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = CliRunner().invoke(app, ["sink", "--listen", place])
    assert ended.exit_code == 1
    assert ended.stderr == f"paquebot: cannot listen on {place}: Address already in use\n"


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = CliRunner().invoke(app, ["sink", "--directory", str(tmp_path / "file")])
    assert ended.exit_code == 1
    assert ended.stderr == f"paquebot: cannot make the directory {tmp_path / 'file'}: File exists\n"


def _send(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.sendmail("alice@example.org", ["carol@example.net"], b"Subject: one\r\n\r\n")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(number: signal.Signals) -> None:
    with sink_process("--json") as sink:
        _send(sink.port)
        sink.process.send_signal(number)
        out, err = sink.process.communicate(timeout=60)
    assert sink.process.returncode == 0
    assert json.loads(out)["subject"] == "one"
    assert err == "1 message\n"


@pytest.mark.slow
def test_count_ends_it_and_a_missing_message_is_exit_code_1(tmp_path: Path) -> None:
    with sink_process("--count", 1, "--directory", tmp_path / "new" / "mail") as sink:
        _send(sink.port)
        assert sink.process.wait(60) == 0
    assert [file.read_bytes() for file in (tmp_path / "new" / "mail").iterdir()] == [b"Subject: one\r\n\r\n"]
    with sink_process("--count", 2) as sink:
        sink.process.terminate()
        _, err = sink.process.communicate(timeout=60)
    assert sink.process.returncode == 1
    assert err == "paquebot: 0 of 2 messages came\n"


@pytest.mark.slow
def test_a_closed_standard_output_ends_it(tmp_path: Path) -> None:
    with sink_process("--directory", tmp_path) as sink:
        assert sink.process.stdout is not None
        sink.process.stdout.close()
        with pytest.raises(smtplib.SMTPDataError):
            _send(sink.port)
        assert sink.process.wait(60) == 1
        assert sink.process.stderr is not None
        assert sink.process.stderr.read() == "paquebot: cannot print: Broken pipe\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_other_commands_do_not_load_aiosmtpd() -> None:
    code = "import sys, paquebot.cli.app; sys.exit('aiosmtpd' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
