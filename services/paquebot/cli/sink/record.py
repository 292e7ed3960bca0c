"""What a sink prints and keeps of a message."""

import contextlib
import datetime
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paquebot.message import decode_header_text, first_value
from paquebot.runtime.ulid import new_ulid


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message and its envelope. `reverse_path` is "" for the null reverse-path; the options are in upper case."""

    at: datetime.datetime
    client: str
    helo: str
    reverse_path: str
    recipients: Sequence[str]
    mail_options: Sequence[str]
    rcpt_options: Sequence[str]
    content: bytes

    def field(self, name: str) -> str | None:
        """The decoded value of the first header field of that name."""
        value = first_value(self.content, name.lower().encode("utf-8", "replace"))
        return None if value is None else decode_header_text(value)


class Recorder:
    """Writes the file of each message, if it has a directory, then its line on standard output."""

    def __init__(self, directory: Path | None, *, as_json: bool, headers: Sequence[str]) -> None:
        """`directory` exists. `headers`: names of the fields that a JSON line has beside the subject."""
        self._directory = directory
        self._as_json = as_json
        self._headers = headers

    def keep(self, message: ReceivedMessage) -> Path | None:
        """Write the message's file; its name sorts by time. Its bytes reach the disk when the system writes them.
        None: there is no directory. Raises OSError."""
        if self._directory is None:
            return None
        name = new_ulid()
        path, unfinished = self._directory / f"{name}.eml", self._directory / f".{name}.part"
        try:
            # Readable for its owner only, because it is somebody's mail.
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(message.content)
            unfinished.rename(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        return path

    def show(self, message: ReceivedMessage, file: Path | None) -> None:
        """Print the message's line. Raises OSError, and removes the file then, because the sender sends it again."""
        line = json.dumps(self._fields(message, file)) if self._as_json else _line(message, file)
        try:
            print(line, flush=True)
        except OSError:
            if file is not None:
                file.unlink(missing_ok=True)
            raise

    def _fields(self, message: ReceivedMessage, file: Path | None) -> Mapping[str, object]:
        at = message.at.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {
            "at": at,
            "client": message.client,
            "helo": message.helo,
            "reverse_path": message.reverse_path,
            "recipients": list(message.recipients),
            "mail_options": list(message.mail_options),
            "rcpt_options": list(message.rcpt_options),
            "size": len(message.content),
            "subject": message.field("subject"),
            "headers": {name.lower(): message.field(name) for name in self._headers},
            "file": None if file is None else str(file),
        }


def report(text: str) -> None:
    """Print a line on standard error that is about no kept message."""
    with contextlib.suppress(OSError):  # a closed standard error must not change a reply
        print(f"{datetime.datetime.now():%H:%M:%S}  {printable(text)}", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Text of a client without what a terminal would obey, such as escape sequences."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def route_text(reverse_path: str, recipients: Sequence[str]) -> str:
    return f"<{reverse_path}> to {', '.join(f'<{recipient}>' for recipient in recipients)}"


def _line(message: ReceivedMessage, file: Path | None) -> str:
    route = route_text(message.reverse_path, message.recipients)
    subject = message.field("subject")
    shown = "no subject" if subject is None else f"Subject: {subject}"
    where = "" if file is None else f"  {file}"
    return printable(f"{message.at:%H:%M:%S}  {route}  {len(message.content):,} bytes  {shown}{where}")
