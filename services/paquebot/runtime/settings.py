"""Frozen settings, read once from `PAQUEBOT_*` at the start of a process; all faults are reported at once.

A settings class is a frozen dataclass whose fields are made with `setting(NAME, ...)`, or are themselves
settings classes. `PAQUEBOT_<NAME>_FILE` names a file that holds the value (secrets; UTF-8, trailing newline
dropped) and goes before `PAQUEBOT_<NAME>`. A setting without a default must be set, and not to nothing.
"""

import dataclasses
import ipaddress
import math
import os
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NewType, TypeVar
from urllib.parse import quote

PREFIX = "PAQUEBOT_"

Seconds = NewType("Seconds", float)
"""A duration; written `250ms`, `30s`, `5m`, `4h`, `5d`, or a plain number of seconds."""

ByteSize = NewType("ByteSize", int)
"""A size; written `64KiB`, `25MB`, or a plain number of bytes."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

T = TypeVar("T")


class SettingsError(Exception):
    """One or more settings are missing or wrong; `faults` has a sentence for each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Secret(str):
    """A string that logs and tracebacks do not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(...)"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a listener binds. Port 0 asks the system for a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class SocketPath:
    """Where a listener has a UNIX socket; written `unix:/run/paquebot/grpc.sock`."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"

    @property
    def uri(self) -> str:
        """As gRPC has it: https://github.com/grpc/grpc/blob/master/doc/naming.md, RFC 3986 §2.1."""
        return f"unix:{quote(os.fsencode(self.path))}"


ListenOrSocket = tuple[Listen, ...] | SocketPath


def setting(name: str, default: Any = dataclasses.MISSING, *, help: str = "") -> Any:
    """A field read from `PAQUEBOT_<name>`; without a default it must be set."""
    return dataclasses.field(default=default, metadata={"setting": name, "help": help})


def load(cls: type[T], environ: Mapping[str, str]) -> T:
    """An instance of the settings class `cls`. Raises SettingsError naming every fault."""
    faults: list[str] = []
    value = _load(cls, environ, faults)
    if faults:
        raise SettingsError(faults)
    return typing.cast(T, value)


def describe(cls: type[Any]) -> list[tuple[str, str, str]]:
    """(variable, default, help) of every setting of `cls`, for `--help` and the documentation."""
    rows: list[tuple[str, str, str]] = []
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if "setting" not in field.metadata:
            rows.extend(describe(hints[field.name]))
            continue
        default = "required" if field.default is dataclasses.MISSING else _shown(hints[field.name], field.default)
        rows.append((PREFIX + field.metadata["setting"], default, field.metadata["help"]))
    return rows


def _shown(hint: Any, value: Any) -> str:
    """A default as an operator would write it."""
    if isinstance(value, tuple):
        return ",".join(_shown(typing.get_args(hint)[0], item) for item in value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if hint is Seconds:
        return show_seconds(value)
    if hint is ByteSize:
        return show_bytes(value)
    return str(value)


def show_seconds(seconds: float) -> str:
    """432000 → `5d`: the largest unit of which it is a whole number."""
    for unit in ("d", "h", "m", "s", "ms"):
        count = seconds / _UNITS[unit]
        if seconds and math.isclose(count, round(count), rel_tol=1e-9) and round(count):
            return f"{round(count)}{unit}"
    return f"{seconds:g}s"


def show_bytes(size: int) -> str:
    """65536 → `64KiB`: the largest unit of which it is a whole number."""
    for unit in ("GiB", "GB", "MiB", "MB", "KiB", "KB"):
        if size and size % _SIZES[unit.upper()] == 0:
            return f"{size // _SIZES[unit.upper()]}{unit}"
    return str(size)


def _load(cls: type[Any], environ: Mapping[str, str], faults: list[str]) -> Any:
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    before = len(faults)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if "setting" not in field.metadata:
            values[field.name] = _load(hint, environ, faults)
            continue
        try:
            values[field.name] = _value(field, hint, environ)
        except ValueError as error:
            faults.append(str(error))
    if len(faults) > before:
        return None
    try:
        return cls(**values)
    except ValueError as error:  # from __post_init__: settings that do not go together
        faults.append(str(error))
        return None


def _value(field: dataclasses.Field[Any], hint: Any, environ: Mapping[str, str]) -> Any:
    """Raises ValueError with a sentence about the fault."""
    variable = PREFIX + field.metadata["setting"]
    required = field.default is dataclasses.MISSING
    text = _text(variable, environ)
    if text is None and not required:
        return field.default
    if text is None or (required and not text.strip()):
        meaning = field.metadata["help"]
        raise ValueError(f"{variable} must be set{': ' + meaning if meaning else ''}")
    try:
        return parse(hint, text)
    except ValueError as error:
        raise ValueError(f"{variable}: {error}") from None


def _text(variable: str, environ: Mapping[str, str]) -> str | None:
    """Raises ValueError with a sentence about the fault."""
    path = environ.get(variable + "_FILE")
    if not path:
        return environ.get(variable)
    try:
        return Path(path).read_text("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"{variable}_FILE: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{variable}_FILE: {path} is not UTF-8 text") from None
    except ValueError as error:  # not a path
        raise ValueError(f"{variable}_FILE: {path!r}: {error}") from None


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_seconds(text: str) -> Seconds:
    """`250ms` → 0.25. Raises ValueError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)?", text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a duration such as 30s, 5m or 4h")
    return Seconds(float(match[1]) * _UNITS[match[2] or "s"])


def parse_bytes(text: str) -> ByteSize:
    """`25MB` → 25000000. Raises ValueError."""
    match = re.fullmatch(r"([0-9]+)\s*([KMG]i?B|B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise ValueError(f"{text!r} is not a size such as 64KiB or 25MB")
    return ByteSize(int(match[1]) * _SIZES[(match[2] or "").upper()])


def parse_listen(text: str) -> Listen:
    """`127.0.0.1:25`, `[::1]:25`; `:25` and `0.0.0.0:25` are all IPv4 addresses, `[::]:25` all addresses of both
    families (`runtime.sockets`). Raises ValueError."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise ValueError(f"{text!r} is not an address and port such as 0.0.0.0:25")
    if host.startswith("[") and host.endswith("]"):
        try:
            return Listen(str(ipaddress.IPv6Address(host[1:-1])), int(port))
        except ValueError:
            raise ValueError(f"{text!r} has no IPv6 address between its brackets") from None
    if ":" in host or "[" in host or "]" in host:
        raise ValueError(f"{text!r} is ambiguous: an IPv6 address stands in brackets, such as [::]:{port}")
    return Listen(host or "0.0.0.0", int(port))  # noqa: S104 - an empty host asks for all addresses


def parse_listen_or_socket(text: str) -> ListenOrSocket:
    """`127.0.0.1:2551,[::1]:2551`, or `unix:/path`, an absolute one. Raises ValueError."""
    scheme, _, path = text.strip().partition(":")
    if scheme != "unix":
        return tuple(parse_listen(word) for word in _words(text))
    if not path.startswith("/"):
        raise ValueError(f"{text!r} has no absolute path, as in unix:/run/paquebot/grpc.sock")
    return SocketPath(Path(path))


def parse_bool(text: str) -> bool:
    """`true`, `false` and their usual spellings. Raises ValueError."""
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def parse_network(text: str) -> Network:
    """`10.0.0.0/8` or one address. Raises ValueError."""
    return ipaddress.ip_network(text.strip(), strict=False)


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def _float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a number")
    return value


_PARSERS: dict[Any, Any] = {
    str: str,
    Secret: Secret,
    int: _int,
    float: _float,
    bool: parse_bool,
    Path: Path,
    Listen: parse_listen,
    ListenOrSocket: parse_listen_or_socket,
    Seconds: parse_seconds,
    ByteSize: parse_bytes,
}


def parse(hint: Any, text: str) -> Any:
    """Text to a value of type `hint`: a type of `_PARSERS`, `X | None` (empty: None), or `tuple[X, ...]`
    (separated by commas or white space). Raises ValueError."""
    if hint in _PARSERS:
        return _PARSERS[hint](text)
    if hint == Network:
        return parse_network(text)
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        return tuple(parse(item, word) for word in _words(text))
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        inner = next(arg for arg in typing.get_args(hint) if arg is not type(None))
        return parse(inner, text) if text else None
    raise TypeError(f"a setting cannot be of type {hint}")
