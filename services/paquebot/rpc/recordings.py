"""Transcripts of an account's sessions, for an administrator (`Directory.RecordSessions`).

The recorder publishes an order on `transcript.order` again and again: "<recording> <account id> <seconds>", valid for
so many seconds; 0 ends the recording. A process publishes what its sessions of that account receive and send on
`transcript.line.<recording>`. Nothing is stored, and no session waits for it: lines that do not fit are counted, and
the recorder gets their number.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from nats.aio.msg import Msg

from paquebot.observability.log import Log
from paquebot.queue import Queue
from paquebot.v1.directory_pb2 import TranscriptLine
from paquebot.wire.transcript import LeftOut, Line, Piece

_log = Log("paquebot.rpc")
ORDERS = "transcript.order"
LINES = "transcript.line.*"
ORDER_SECONDS = 15
"""How long an order is valid; the recorder repeats it sooner."""
MAX_SECONDS = 24 * 3600
_MAX_ORDERS = 16
_MAX_WAITING_BYTES = 2 * 2**20  # of lines that this process has not published yet
_LINE_COST = 200  # bytes of a line without its text


class Filter(Protocol):
    """Removes secrets and content from a session's lines, as its protocol needs (`wire.transcript`)."""

    def server_data(self, data: bytes) -> list[Piece]: ...


F = TypeVar("F", bound=Filter)


def new_id() -> str:
    """The id of a recording, or of a session in it."""
    return secrets.token_hex(8)


def order(recording_id: str, account_id: int, seconds: int) -> bytes:
    """The payload on `transcript.order`."""
    return f"{recording_id} {account_id} {seconds}".encode()


def lines_subject(recording_id: str) -> str:
    """The subject of a recording's lines."""
    return LINES.replace("*", recording_id)


@dataclass(frozen=True, slots=True)
class _Order:
    recording_id: str
    until: float


class Recordings:
    """The accounts that are recorded now; one for a process. `run` must run. `clock`: monotonic seconds."""

    def __init__(self, queue: Queue, protocol: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`protocol`: imap, pop3 or smtp."""
        self._queue = queue
        self.protocol = protocol
        self._clock = clock
        self._orders: dict[int, _Order] = {}
        self._waiting: list[TranscriptLine] = []
        self._waiting_bytes = 0
        self._lost = 0
        self._not_empty = asyncio.Event()

    async def listen(self) -> None:
        """Subscribe to orders. Never raises."""
        await self._queue.subscribe(ORDERS, self._on_order)

    def recording_of(self, account_id: int) -> str:
        """The id of the account's recording; empty: none. Called before each command."""
        if not self._orders:
            return ""
        found = self._orders.get(account_id)
        if found is None or found.until < self._clock():
            self._orders.pop(account_id, None)
            return ""
        return found.recording_id

    def publish(self, line: TranscriptLine) -> None:
        """Publish the line soon.

        A session checks for a recording before each command only, so a line of a long command may belong to a recording
        that has ended: it is dropped.
        """
        now = self._clock()
        if not any(line.recording_id == one.recording_id and now <= one.until for one in self._orders.values()):
            return
        cost = _LINE_COST + len(line.client) + len(line.server)
        if self._waiting_bytes + cost > _MAX_WAITING_BYTES:
            self._lost += 1
            return
        if self._lost:
            self._waiting.append(TranscriptLine(recording_id=line.recording_id, lost=self._lost))
            self._lost = 0
        self._waiting.append(line)
        self._waiting_bytes += cost
        self._not_empty.set()

    async def run(self) -> None:
        """Publish the waiting lines, until cancelled."""
        while True:
            await self._not_empty.wait()
            self._not_empty.clear()
            lines, self._waiting, self._waiting_bytes = self._waiting, [], 0
            for line in lines:
                await self._queue.send(lines_subject(line.recording_id), line.SerializeToString())

    def _on_order(self, message: Msg) -> None:
        words = message.data.decode("ascii", "replace").split()
        if len(words) != 3 or not (words[0].isalnum() and words[1].isdecimal() and words[2].isdecimal()):
            _log.warning("transcript_order_invalid")
            return
        recording_id, account_id, seconds = words[0], int(words[1]), min(int(words[2]), ORDER_SECONDS)
        now = self._clock()
        first = self._orders.get(account_id)
        if first is not None and first.recording_id != recording_id and now <= first.until:
            return  # one recording of an account at a time; the second one begins when the first has ended
        if not seconds:
            self._orders.pop(account_id, None)
            return
        if account_id not in self._orders and len(self._orders) >= _MAX_ORDERS:
            return
        self._orders[account_id] = _Order(recording_id, now + seconds)


class Transcript(Generic[F]):
    """The transcript of one recorded session; `filter` is the protocol's."""

    __slots__ = ("_recordings", "_session_id", "filter", "recording_id")

    def __init__(self, recordings: Recordings, recording_id: str, session_id: str, filter_: F) -> None:
        self._recordings = recordings
        self._session_id = session_id
        self.recording_id = recording_id
        self.filter = filter_

    def from_client(self, pieces: Iterable[Piece]) -> None:
        """Lines that the client sent."""
        for piece in pieces:
            line = self._line()
            match piece:
                case Line(text, cut):
                    line.client, line.cut = text, cut
                case LeftOut(count):
                    line.client_left_out = count
            self._recordings.publish(line)

    def from_server(self, data: bytes | bytearray | memoryview) -> None:
        """Data sent to the client."""
        for piece in self.filter.server_data(bytes(data)):
            line = self._line()
            match piece:
                case Line(text, cut):
                    line.server, line.cut = text, cut
                case LeftOut(count):
                    line.server_left_out = count
            self._recordings.publish(line)

    def begin(self, client: str, mailbox: str) -> None:
        """The recording of the session begins here."""
        line = self._line()
        line.begun.client, line.begun.mailbox = client, mailbox
        self._recordings.publish(line)

    def end(self) -> None:
        """The session has ended."""
        line = self._line()
        line.ended = True
        self._recordings.publish(line)

    def _line(self) -> TranscriptLine:
        return TranscriptLine(
            recording_id=self.recording_id,
            session_id=self._session_id,
            protocol=self._recordings.protocol,
            at_ms=time.time_ns() // 1_000_000,
        )


class TranscriptRecorder(Generic[F]):
    """Records an authenticated session on demand. `transcript` is None while it is not recorded."""

    __slots__ = ("_account_id", "_client", "_mailbox", "_new_filter", "_recordings", "_session_id", "transcript")

    def __init__(
        self,
        recordings: Recordings,
        account_id: int,
        client: str,
        new_filter: Callable[[], F],
        mailbox: Callable[[], str] = str,
    ) -> None:
        """`client`: its address. `new_filter` makes the protocol's filter; `mailbox` returns the selected mailbox."""
        self._recordings = recordings
        self._account_id = account_id
        self._client = client
        self._new_filter = new_filter
        self._mailbox = mailbox
        self._session_id = ""
        self.transcript: Transcript[F] | None = None

    def look(self) -> Transcript[F] | None:
        """Called before each command; None: the session is not recorded."""
        wanted = self._recordings.recording_of(self._account_id)
        current = self.transcript
        if wanted == (current.recording_id if current is not None else ""):
            return current
        if not wanted:
            self.transcript = None
            return None
        self._session_id = self._session_id or new_id()
        self.transcript = Transcript(self._recordings, wanted, self._session_id, self._new_filter())
        self.transcript.begin(self._client, self._mailbox())
        return self.transcript

    def end(self) -> None:
        """The session has ended."""
        if self.transcript is not None:
            self.transcript.end()
            self.transcript = None
