"""What `paquebot up` keeps in its data directory: the lock, the secrets, the socket."""

from pathlib import Path

import pytest

from paquebot.cli.up.environment import PlatformPlan
from paquebot.cli.up.layout import Layout, Ports, UpError


def test_secrets_are_made_once(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert layout.secrets() == layout.secrets()


@pytest.mark.parametrize("content", [b"[]", b"null", b'{"nats": 5}', b"{", b"\xff"])
def test_damaged_secrets_are_reported_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secrets.json"
    path.write_bytes(content)
    with pytest.raises(UpError, match="is damaged: restore it"):
        Layout(tmp_path).secrets()
    assert path.read_bytes() == content


def test_secrets_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").mkdir()
    with pytest.raises(UpError, match="cannot read"):
        Layout(tmp_path).secrets()


def test_a_lock_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(UpError, match="cannot open"):
        Layout(tmp_path).lock()


def test_only_the_owner_reaches_the_socket_of_grpc(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.prepare_socket()
    layout.socket.parent.chmod(0o755)
    layout.prepare_socket()  # a second start
    assert layout.socket.parent.is_relative_to(tmp_path)
    assert layout.socket.parent.stat().st_mode & 0o777 == 0o700


def test_with_a_long_path_the_socket_is_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    layout = Layout(long)
    layout.prepare_socket()
    assert layout.socket.parent.parent == tmp_path
    assert layout.socket.parent.stat().st_mode & 0o777 == 0o700
    assert Layout(long).socket == layout.socket != Layout(long / "other").socket


def test_a_directory_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    (tmp_path / "theirs").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    Layout(long).socket.parent.symlink_to(tmp_path / "theirs")
    with pytest.raises(UpError, match="belongs to another user"):
        Layout(long).prepare_socket()


def test_clients_and_services_use_the_socket_by_default(tmp_path: Path) -> None:
    def environments(ports: Ports) -> tuple[dict[str, str], dict[str, str]]:
        layout = Layout(tmp_path)
        plan = PlatformPlan(layout, ports, layout.secrets(), "mail.paquebot.test", "paquebot.test")
        return plan.service_environment("recipient_validation"), plan.client_environment()

    socket = f"unix:{tmp_path}/run/grpc.sock"
    service, client = environments(Ports())
    assert (service["PAQUEBOT_GRPC_LISTEN"], client["PAQUEBOT_RECIPIENT_VALIDATION"]) == (socket, socket)
    assert "PAQUEBOT_GRPC_PLAIN_LISTEN" not in service
    service, client = environments(Ports().moved({"grpc": 2551}))
    assert (service["PAQUEBOT_GRPC_LISTEN"], client["PAQUEBOT_RECIPIENT_VALIDATION"]) == (socket, socket)
    assert service["PAQUEBOT_GRPC_PLAIN_LISTEN"] == "127.0.0.1:2551"


@pytest.mark.parametrize(
    ("servers", "opened"),
    [
        ("", False),
        ("127.0.0.1:5390", True),
        ("127.0.0.1:5390,[::1]:5391", True),
        ("127.0.0.1:53", False),
        ("127.0.0.1:5390,192.0.2.1:53", False),
    ],
)
def test_relay_may_connect_to_loopback_with_name_servers_on_loopback(
    tmp_path: Path, servers: str, *, opened: bool
) -> None:
    layout = Layout(tmp_path)
    overrides = {"PAQUEBOT_RELAY_DNS": servers} if servers else {}
    plan = PlatformPlan(layout, Ports(), layout.secrets(), "mail.example.org", "example.org", overrides)
    assert ("PAQUEBOT_RELAY_ALLOW_NETWORKS" in plan.service_environment("relay")) == opened
    closed = PlatformPlan(
        layout, Ports(), layout.secrets(), "h", "d", {**overrides, "PAQUEBOT_RELAY_ALLOW_NETWORKS": ""}
    )
    assert closed.service_environment("relay")["PAQUEBOT_RELAY_ALLOW_NETWORKS"] == ""
