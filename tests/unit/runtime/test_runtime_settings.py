"""Settings from the environment: every type, secrets by file, and all faults at once."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paquebot.runtime.engine_settings import NatsSettings, ProcessSettings
from paquebot.runtime.settings import (
    ByteSize,
    Listen,
    ListenOrSocket,
    Network,
    Seconds,
    Secret,
    SettingsError,
    SocketPath,
    describe,
    load,
    parse,
    setting,
)


@dataclass(frozen=True, slots=True)
class Inner:
    wait: Seconds = setting("WAIT", Seconds(5 * 86400.0), help="a duration")
    size: ByteSize = setting("SIZE", ByteSize(64 * 1024))

    def __post_init__(self) -> None:
        if self.wait > 9 * 86400:
            raise ValueError("PAQUEBOT_WAIT is at most 9d")


@dataclass(frozen=True, slots=True)
class Outer:
    inner: Inner
    token: Secret = setting("TOKEN", help="of the tests")
    on: bool = setting("ON", False)
    waits: tuple[Seconds, ...] = setting("WAITS", (Seconds(30.0), Seconds(0.25)))
    listen: Listen | None = setting("LISTEN", None)


def faults(cls: type[Any], **environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(cls, {f"PAQUEBOT_{name}": value for name, value in environ.items()})
    return caught.value.faults


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (str, " as it is ", " as it is "),
        (int, "-3", -3),
        (float, "0.5", 0.5),
        (bool, "Yes", True),
        (bool, "0", False),
        (Path, "/etc/x", Path("/etc/x")),
        (Path | None, "", None),
        (Seconds, "250ms", 0.25),
        (Seconds, "1.5h", 5400.0),
        (Seconds, "7", 7.0),
        (ByteSize, "64KiB", 65536),
        (ByteSize, "25 mb", 25_000_000),
        (ByteSize, "12", 12),
        (Listen, "127.0.0.1:25", Listen("127.0.0.1", 25)),
        (Listen, "[::]:25", Listen("::", 25)),
        (Listen, ":25", Listen("0.0.0.0", 25)),
        (ListenOrSocket, "127.0.0.1:1, [::1]:2", (Listen("127.0.0.1", 1), Listen("::1", 2))),
        (ListenOrSocket, "unix:/a, b/c", SocketPath(Path("/a, b/c"))),
        (Listen | None, "", None),
        (Network, "10.1.2.3/8", ipaddress.ip_network("10.0.0.0/8")),
        (Network, "2001:db8::1", ipaddress.ip_network("2001:db8::1/128")),
        (tuple[Seconds, ...], "5m, 1h 2d", (300.0, 3600.0, 172800.0)),
        (tuple[str, ...], "", ()),
    ],
)
def test_value_of_every_type(hint: Any, text: str, value: Any) -> None:
    assert parse(hint, text) == value


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int, "1.0"),
        (float, "much"),
        (float, "nan"),
        (float, "inf"),
        (bool, "perhaps"),
        (bool, ""),
        (Seconds, "-1s"),
        (Seconds, "5 weeks"),
        (Seconds, ""),
        (ByteSize, "1.5KiB"),
        (ByteSize, "-1"),
        (Network, "10.0.0.0/99"),
        (Listen, "25"),
        (Listen, "host:"),
        (Listen, "host:65536"),
        (Listen, "host:²"),
        (Listen, "[::1:25"),
        (Listen, "[mail.example.org]:25"),
        (tuple[int, ...], "1,x"),
    ],
)
def test_wrong_value_of_every_type(hint: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(hint, text)


@pytest.mark.parametrize("text", ["::25", "::1:25", "2001:db8::1:25"])
def test_bare_ipv6_address_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(ValueError, match=r"in brackets, such as \[::\]:25"):
        parse(Listen, text)


def test_file_has_precedence_and_its_last_newline_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes("sécret \r\n".encode())
    environ = {"PAQUEBOT_TOKEN_FILE": str(tmp_path / "token"), "PAQUEBOT_TOKEN": "other"}
    loaded = load(Outer, environ)
    assert loaded.token == "sécret "
    assert "cret" not in repr(loaded).replace("Secret(...)", "")


@pytest.mark.parametrize("name", ["absent", "latin1", ".", "n\0l"])
def test_file_that_cannot_be_read_is_one_fault(tmp_path: Path, name: str) -> None:
    (tmp_path / "latin1").write_bytes(b"\xe9")
    (fault,) = faults(Outer, TOKEN_FILE=f"{tmp_path}/{name}")
    assert fault.startswith("PAQUEBOT_TOKEN_FILE: ")


@pytest.mark.parametrize("environ", [{}, {"TOKEN": ""}, {"TOKEN": " "}])
def test_required_setting_may_not_be_empty(environ: dict[str, str]) -> None:
    assert faults(Outer, **environ) == ["PAQUEBOT_TOKEN must be set: of the tests"]


def test_required_setting_may_not_be_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\n")
    assert faults(Outer, TOKEN_FILE=str(tmp_path / "token")) == ["PAQUEBOT_TOKEN must be set: of the tests"]


def test_all_faults_at_once() -> None:
    found = faults(Outer, WAIT="10d", ON="perhaps", WAITS="1s,never", LISTEN="::25")
    assert len(found) == 5
    for name in ("WAIT is", "TOKEN", "ON", "WAITS", "LISTEN"):
        assert any(fault.startswith(f"PAQUEBOT_{name}") for fault in found)


@pytest.mark.parametrize("replicas", ["0", "2", "4", "7", "-1"])
def test_stream_has_1_3_or_5_copies(replicas: str) -> None:
    assert faults(NatsSettings, NATS_REPLICAS=replicas) == [f"PAQUEBOT_NATS_REPLICAS must be 1, 3 or 5, not {replicas}"]
    assert load(NatsSettings, {"PAQUEBOT_NATS_REPLICAS": "3"}).replicas == 3


@pytest.mark.parametrize("level", ["loud", "", "10"])
def test_unknown_log_level_is_a_fault(level: str) -> None:
    assert faults(ProcessSettings, LOG_LEVEL=level)[0].startswith("PAQUEBOT_LOG_LEVEL: ")
    assert load(ProcessSettings, {"PAQUEBOT_LOG_LEVEL": "Debug"}).log_level == "Debug"


def test_describe_writes_readable_defaults() -> None:
    assert describe(Outer) == [
        ("PAQUEBOT_WAIT", "5d", "a duration"),
        ("PAQUEBOT_SIZE", "64KiB", ""),
        ("PAQUEBOT_TOKEN", "required", "of the tests"),
        ("PAQUEBOT_ON", "false", ""),
        ("PAQUEBOT_WAITS", "30s,250ms", ""),
        ("PAQUEBOT_LISTEN", "", ""),
    ]


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Seconds, 0.0),
        (Seconds, 0.005),
        (Seconds, 90.0),
        (Seconds, 0.0005),
        (ByteSize, 0),
        (ByteSize, 1000),
        (ByteSize, 1025),
    ],
)
def test_shown_default_parses_to_the_same_value(hint: Any, value: Any) -> None:
    row: type[Any] = dataclass(frozen=True)(
        type("Row", (), {"__annotations__": {"it": hint}, "it": setting("IT", value)})
    )
    ((_, text, _),) = describe(row)
    assert parse(hint, text) == pytest.approx(value, rel=1e-9)
