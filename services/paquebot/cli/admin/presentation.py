"""Output of the administration commands: tables for people, JSON for scripts."""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from paquebot.runtime.settings import parse_bytes

Value = str | int | bool | list[str] | None
Record = Mapping[str, Value]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def print_records(records: Sequence[Record], columns: Sequence[str], *, as_json: bool) -> None:
    """Print records: a table of `columns`, or a JSON list with every field."""
    if as_json:
        _print_json(list(records))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.removesuffix("_bytes").replace("_", " "), overflow="fold")
    for record in records:
        table.add_row(*(_text(column, record[column]) for column in columns))
    _console().print(table)


def print_record(record: Record, *, as_json: bool) -> None:
    """Print one record: a line for each field, or a JSON object."""
    if as_json:
        _print_json(dict(record))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in record.items():
        table.add_row(name.removesuffix("_bytes").replace("_", " "), _text(name, value))
    _console().print(table)


def iso_time(at_ms: int) -> str | None:
    """Unix milliseconds to ISO 8601 in UTC, to the second; 0: None."""
    if not at_ms:
        return None
    return datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def bytes_text(count: int) -> str:
    """`5368709120` → `5 GiB`."""
    size, unit = float(count), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.4g} {_UNITS[unit]}"


def quota_bytes(text: str) -> int:
    """The value of `--quota`: a size, or `none`. Raises typer.BadParameter."""
    if text.lower() == "none":
        return 0
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}, or none") from None


def _text(name: str, value: Value) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "\n".join(value)
    if name.endswith("quota_bytes") and value == 0:
        return "none"
    if name.endswith("_bytes") and isinstance(value, int):
        return bytes_text(value)
    return str(value)


def _console() -> Console:
    # Addresses and names come from users: no markup, no emoji codes, no highlighting.
    return Console(markup=False, emoji=False, highlight=False)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))
