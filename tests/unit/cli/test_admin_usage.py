"""How the administration commands answer wrong use, and their help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paquebot.cli.admin.connection import client_environment
from paquebot.cli.admin.presentation import bytes_text, iso_time, quota_bytes
from paquebot.cli.app import app
from paquebot.cli.main import main
from paquebot.runtime.settings import SettingsError


@pytest.mark.parametrize(
    "command",
    [
        "domain set example.org",
        "domain set example.org --quota much",
        "account add",
        "account add a@example.org --password secret",  # never as an argument
        "account add a@example.org --password-stdin",  # and nothing on stdin
        "account set a@example.org",
        "alias set a@example.org",
        "alias add a@example.org",
    ],
)
def test_wrong_use_is_exit_code_2(command: str) -> None:
    ended = CliRunner().invoke(app, command.split())
    assert ended.exit_code == 2
    assert ended.stderr.startswith("Usage: ")
    assert "Traceback" not in ended.stderr


def test_an_argument_that_is_not_utf8_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["paquebot", "account", "show", "\udcff@example.org"])
    with pytest.raises(SystemExit, match="an argument is not UTF-8"):
        main()


def test_a_password_that_is_not_utf8_is_refused() -> None:
    command = ["account", "add", "a@example.org", "--password-stdin"]
    ended = CliRunner().invoke(app, command, input=b"caf\xe9\n")
    assert ended.exit_code == 2
    assert "the password is not UTF-8" in ended.stderr


@pytest.mark.slow
def test_without_a_terminal_the_password_is_not_prompted_for() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from paquebot.cli.main import main; main()", "account", "add", "a@example.org"],
        input="password of nobody\n",
        capture_output=True,
        text=True,
        start_new_session=True,
        env={"COLUMNS": "120"},
    )
    assert ended.returncode == 2
    assert "give it with --password-stdin" in ended.stderr
    assert "Warning" not in ended.stderr


@pytest.mark.parametrize("command", ["domain", "account add", "account app-password add", "alias set"])
def test_help(command: str) -> None:
    ended = CliRunner(env={"COLUMNS": "120"}).invoke(app, [*command.split(), "--help"])
    assert ended.exit_code == 0
    assert "Usage: " in ended.stdout


def test_help_of_up_names_every_port() -> None:
    ended = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["up", "--help"])
    words = set(ended.stdout.replace(",", " ").replace(".", " ").split())
    assert {"smtp", "s3-volume-grpc", "pop3-metrics"} <= words


def test_up_refuses_a_demo_domain_that_is_none_before_it_starts_anything(tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, ["up", "--data", str(tmp_path / "data"), "--domain", "two words"])
    assert ended.exit_code == 1
    assert "--domain: " in ended.stdout
    assert not (tmp_path / "data").exists()


def test_precedence_of_option_environment_and_local_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, token in ((".paquebot", "of here"), ("other", "of the option")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "client.env").write_text(
            f"# a comment = nothing\nPAQUEBOT_ADMIN_TOKEN={token}\nPAQUEBOT_A=1\n"
        )
    monkeypatch.chdir(tmp_path)
    assert client_environment(None, {"B": "2"}) == {"PAQUEBOT_ADMIN_TOKEN": "of here", "PAQUEBOT_A": "1", "B": "2"}
    assert client_environment(None, {"PAQUEBOT_ADMIN_TOKEN": "x"})["PAQUEBOT_ADMIN_TOKEN"] == "x"
    by_option = client_environment(tmp_path / "other", {"PAQUEBOT_ADMIN_TOKEN": "x"})
    assert by_option["PAQUEBOT_ADMIN_TOKEN"] == "of the option"
    with pytest.raises(SettingsError, match="cannot read"):
        client_environment(tmp_path / "none", {})
    monkeypatch.chdir(tmp_path / "other")
    assert client_environment(None, {"B": "2"}) == {"B": "2"}


@pytest.mark.parametrize(
    ("listen", "target"),
    [
        ("0.0.0.0:2552", "localhost:2552"),
        ("[::]:2552", "localhost:2552"),
        ("unix:/run/paquebot/grpc.sock", "unix:/run/paquebot/grpc.sock"),
    ],
)
def test_in_the_pod_of_the_directory_its_address_is_known(listen: str, target: str) -> None:
    here = {"PAQUEBOT_GRPC_LISTEN": listen}
    assert client_environment(None, here)["PAQUEBOT_RECIPIENT_VALIDATION"] == target
    told = {**here, "PAQUEBOT_RECIPIENT_VALIDATION": "elsewhere:2551"}
    assert client_environment(None, told)["PAQUEBOT_RECIPIENT_VALIDATION"] == "elsewhere:2551"


def test_how_values_are_printed() -> None:
    assert bytes_text(0) == "0 B"
    assert bytes_text(1536) == "1.5 KiB"
    assert bytes_text(5 * 2**30) == "5 GiB"
    assert quota_bytes("5GiB") == 5 * 2**30
    assert quota_bytes("None") == 0
    assert iso_time(0) is None
    assert iso_time(1_000_000_000_500) == "2001-09-09T01:46:40Z"
