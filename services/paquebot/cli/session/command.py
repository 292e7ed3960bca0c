"""`paquebot session record`: a protocol transcript of one account, for a limited time."""

import asyncio
import contextlib
import datetime
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TextIO

import typer

from paquebot.cli.admin.connection import DataOption, administer
from paquebot.cli.session.dialogue import DialogueWriter
from paquebot.cli.waiting import parse_duration
from paquebot.rpc import DirectoryClient
from paquebot.runtime.settings import ByteSize, parse_bytes
from paquebot.v1 import directory_pb2 as pb

session_app = typer.Typer(
    help="Record what the mail programs of an account send, and the server's replies.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Account = Annotated[str, typer.Option(metavar="ADDRESS", help="The account to record.", show_default=False)]
For = Annotated[
    float, typer.Option("--for", parser=parse_duration, metavar="TIME", help="Duration, such as 10m; maximum 24h.")
]
To = Annotated[Path | None, typer.Option(metavar="FILE", help="Output file; standard output if not given.")]
Size = Annotated[ByteSize, typer.Option(parser=parse_bytes, metavar="SIZE", help="Maximum size of the recording.")]


@session_app.callback()
def _group() -> None:
    """Commands about sessions."""


@session_app.command("record")
def record(
    account: Account,
    seconds: For = "10m",  # type: ignore[assignment]
    to: To = None,
    size: Size = "10MB",  # type: ignore[assignment]
    data: DataOption = None,
) -> None:
    """Record the IMAP, POP3 and submission sessions of one account, also those that are open already.

    The recording has no passwords, messages and long literals; it has names of mailboxes, search terms, addresses
    and subjects. The file is a dialogue that the project's tests can replay; tests/dialogues/dialogue.py describes
    its format. Ctrl-C stops the recording.
    """
    recording = _Recording(account, seconds, size)
    try:
        with _opened(to) as file:
            recording.write_to(file)
            administer(data, recording.run)
    except OSError as error:
        typer.echo(f"paquebot: cannot write {to}: {error.strerror}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{recording.writer.sessions} sessions, {recording.writer.lines} lines", err=True)


class _Recording:
    def __init__(self, account: str, seconds: float, size: ByteSize) -> None:
        self._account = account
        self._seconds = seconds
        self._left = int(size)
        self._file: TextIO = sys.stdout
        self.writer = DialogueWriter(self._write, account)

    def write_to(self, file: TextIO) -> None:
        """Set the output; call it before `run`."""
        self._file = file

    def _write(self, line: str) -> None:
        self._left -= len(line) + 1
        self._file.write(line + "\n")

    async def run(self, client: DirectoryClient) -> None:
        """Record until the time is over, the maximum size is reached, or a signal comes."""
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        request = pb.RecordSessionsRequest(address=self._account, seconds=max(1, round(self._seconds)))
        with contextlib.suppress(asyncio.CancelledError):
            await self._read(client, request)

    async def _read(self, client: DirectoryClient, request: pb.RecordSessionsRequest) -> None:
        until = datetime.datetime.now().astimezone() + datetime.timedelta(seconds=request.seconds)
        self._write(f"# Sessions of an account until {until:%Y-%m-%d %H:%M:%S %Z}.")
        self._write("# Without passwords and messages.")
        async with contextlib.aclosing(client.follow(client.stub.RecordSessions, request)) as lines:
            async for line in lines:
                self._add(line, until)
                if self._left <= 0:
                    self._write("# Stopped here: maximum size reached (--size).")
                    typer.echo("paquebot: stopped: maximum size reached; allow more with --size", err=True)
                    return

    def _add(self, line: pb.TranscriptLine, until: datetime.datetime) -> None:
        match line.WhichOneof("what"):
            case None:
                typer.echo(f"recording sessions of {self._account} until {until:%H:%M:%S}; Ctrl-C stops it", err=True)
                return
            case "begun":
                typer.echo(f"{line.protocol} session from {line.begun.client}", err=True)
        self.writer.add(line)
        self._file.flush()


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    """Readable for its owner only, because it shows what the user reads. Raises OSError."""
    if path is None:
        yield sys.stdout
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        yield file
