"""JSON logs: one event name plus fields a line. No message content, no credentials; addresses only when asked for.

`ids(queue_id=..., session=...)` binds ids to the current task, so that every line of one message can be found.
"""

import contextlib
import contextvars
import datetime
import json
import logging
import math
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

_ids: contextvars.ContextVar[dict[str, Any]] = contextvars.ContextVar("ids")
_EACH = "fields_of_each_line"
_RESERVED = "fields"
_PLAIN = frozenset((str, int, bool, type(None)))  # values that JSON has a form for as they are


class Log:
    """A named log. `log.info("delivered", queue_id=..., account_id=...)`."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        if self._logger.isEnabledFor(logging.DEBUG):
            self._logger.debug(event, extra={_RESERVED: fields})

    def info(self, event: str, **fields: Any) -> None:
        if self._logger.isEnabledFor(logging.INFO):
            self._logger.info(event, extra={_RESERVED: fields})

    def info_each(self, event: str, lines: Sequence[dict[str, Any]]) -> None:
        """A line for each of the fields in `lines`, written together: cheap where there are many."""
        if lines and self._logger.isEnabledFor(logging.INFO):
            self._logger.info(event, extra={_EACH: lines})

    def warning(self, event: str, **fields: Any) -> None:
        self._logger.warning(event, extra={_RESERVED: fields})

    def error(self, event: str, **fields: Any) -> None:
        self._logger.error(event, extra={_RESERVED: fields})

    def exception(self, event: str, **fields: Any) -> None:
        """An error with the traceback of the exception being handled."""
        self._logger.error(event, extra={_RESERVED: fields}, exc_info=True)


@contextlib.contextmanager
def ids(**fields: Any) -> Iterator[None]:
    """Bind ids to every line logged inside."""
    token = _ids.set({**_ids.get({}), **fields})
    try:
        yield
    finally:
        _ids.reset(token)


def bind_ids(**fields: Any) -> None:
    """Bind ids to every line that the current task logs from now on."""
    _ids.set({**_ids.get({}), **fields})


class AddressPolicy:
    """Whether mail addresses are written whole or as `*@domain`."""

    __slots__ = ("whole",)

    def __init__(self) -> None:
        self.whole = False

    def __call__(self, address: str) -> str:
        return address if self.whole or "@" not in address else "*@" + address.rpartition("@")[2]


shown = AddressPolicy()
"""`shown(address)` for a log field."""


class _JsonFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service
        # In ASCII: a lone surrogate, which a peer can bring in, has no UTF-8, and U+2028 ends a line for some readers.
        self._encode = json.JSONEncoder(default=_written).encode
        self._second = (-1, "")

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self._time(record.created),
            "level": record.levelname.lower(),
            "service": self._service,
            "event": record.getMessage(),
        }
        if record.name != "paquebot":
            line["logger"] = record.name
        line.update(_ids.get({}))
        line.update(getattr(record, _RESERVED, {}))
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = "".join(traceback.format_exception(*record.exc_info))
        if not _PLAIN.issuperset(map(type, line.values())):
            line = _with_string_keys(line)
        return self._encode(line)

    def _time(self, created: float) -> str:
        """RFC 3339 with milliseconds; all but those are made once a second."""
        milliseconds = int(created * 1000)
        second = milliseconds // 1000
        if second != self._second[0]:
            at = datetime.datetime.fromtimestamp(second, datetime.UTC)
            self._second = (second, at.strftime("%Y-%m-%dT%H:%M:%S"))
        return f"{self._second[1]}.{milliseconds % 1000:03}+00:00"


class _LinesFormatter(_JsonFormatter):
    """Also several lines of one record, which differ in their fields alone: what they share is written once."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        start = line[:-1] + ", "
        lines = [
            start + self._encode(_with_string_keys(fields))[1:] if fields else line
            for fields in getattr(record, _EACH, ())
        ]
        return "\n".join(lines) if lines else line


def _with_string_keys(value: Any) -> Any:
    """JSON names are strings; a field may be any mapping, inside any list."""
    match value:
        case dict():
            return {str(key): _with_string_keys(item) for key, item in value.items()}
        case list() | tuple():
            return [_with_string_keys(item) for item in value]
        case float() if not math.isfinite(value):
            return str(value)  # RFC 8259 §6: no NaN, no infinity
        case _:
            return value


def _written(value: Any) -> str:
    """A value that JSON has no form for; a line is never lost because one cannot be written."""
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - any class may be in a field
        return f"<{type(value).__name__}: {type(error).__name__}>"


def set_up(service: str, *, level: str = "info", addresses: bool = False, stream: TextIO | None = None) -> None:
    """Log JSON lines of `service` to stdout, or to `stream`."""
    # What no line tells is not found out for each: the caller, its thread and process (logging HOWTO, Optimization).
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(_LinesFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("nats", "urllib3", "grpc", "asyncio", "mail.log"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    shown.whole = addresses
