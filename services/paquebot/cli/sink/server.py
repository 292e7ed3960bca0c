"""The server of `paquebot sink`: aiosmtpd's SMTP class as it is, with its defaults, and a handler.

It is another implementation of SMTP than ours, on purpose: what our relay and our ingress both misread alike, a server
built from `wire.smtp` would not show. It is no server for the world: it knows no shares between clients, and aiosmtpd
keeps each line of a message as an object, so that one of short lines takes many times its size in memory (decision 44).

Memory: the transactions under way hold together `_CONTENT` bytes of messages or one message, whichever is more.
"""

import asyncio
import contextlib
import datetime
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from aiosmtpd.controller import UnthreadedController
from aiosmtpd.smtp import SMTP, Envelope, Session

from paquebot.cli.sink.record import ReceivedMessage, Recorder, report, route_text
from paquebot.cli.sink.rules import RecipientRules
from paquebot.runtime.settings import Listen

_CONTENT = 256 * 2**20
_MAX_TRANSACTIONS = 256
_MAX_RECIPIENTS = 1000  # of a transaction; RFC 5321 §4.5.3.1.8 asks for 100 at least
_GRACE = 1.0  # seconds; for sessions that are about to end by themselves
_SHUTTING_DOWN = "421 4.3.2 Server shutting down"


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """`name`: the server's name in its greeting; `count`: the messages after which it exits, 0: none."""

    listen: Listen
    name: str
    max_size: int
    count: int = 0


class SinkHandler:
    """aiosmtpd's hooks. Its class keeps the order of commands and the maximum size; a hook gives the reply.

    `on_end` is called after the last message of `count`, and when a line cannot be printed.
    """

    def __init__(self, options: SinkOptions, rules: RecipientRules, recorder: Recorder) -> None:
        self._count = options.count
        self._max_transactions = max(1, min(_MAX_TRANSACTIONS, _CONTENT // options.max_size))
        self._rules = rules
        self._recorder = recorder
        self._servers: weakref.WeakSet[SMTP] = weakref.WeakSet()
        self.received = 0
        self.fault: OSError | None = None
        self.ending = False
        self.on_end: Callable[[], None] = lambda: None

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.ending:
            return _SHUTTING_DOWN
        if self._transactions() >= self._max_transactions:
            return "451 4.3.2 Too many messages at once, try again later"
        self._servers.add(server)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if len(envelope.rcpt_tos) >= _MAX_RECIPIENTS:
            return "452 4.5.3 Too many recipients"
        reverse_path = _reverse_path(envelope)
        refusal = self._rules.refusal(reverse_path, address)
        if refusal is not None:
            report(f"{route_text(reverse_path, [address])}  {refusal}")
            return refusal
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.ending:
            return _SHUTTING_DOWN
        message = _received(session, envelope)
        try:
            file = self._recorder.keep(message)
        except OSError as error:
            report(f"cannot write the message: {error}")
            return "452 4.3.1 Cannot keep the message, try again later"
        try:
            self._recorder.show(message, file)
        except OSError as error:
            self.fault = error
            self._end()
            return "451 4.3.0 Cannot print the message, try again later"
        self.received += 1
        if self.received == self._count:
            self._end()
        return "250 2.0.0 Taken"

    async def handle_exception(self, error: Exception) -> str:
        """Without this hook aiosmtpd answers 500, after which a sender gives up."""
        report(f"{type(error).__name__}: {error}")
        return "451 4.3.0 Temporary failure, try again later"

    def _transactions(self) -> int:
        return sum(
            server.transport is not None and server.envelope is not None and server.envelope.mail_from is not None
            for server in self._servers
        )

    def _end(self) -> None:
        self.ending = True
        self.on_end()


class Sink:
    """One server. `open`, then `serve`; `stop` ends that. It has an event loop of its own."""

    def __init__(self, options: SinkOptions, rules: RecipientRules, recorder: Recorder) -> None:
        self.loop = asyncio.new_event_loop()
        self.handler = SinkHandler(options, rules, recorder)
        self.handler.on_end = self.stop
        self._stopped = asyncio.Event()
        self._controller = UnthreadedController(
            self.handler,
            hostname=options.listen.host,
            port=options.listen.port,
            loop=self.loop,
            server_hostname=options.name,
            data_size_limit=options.max_size,
        )

    def open(self) -> Listen:
        """Listen; returns the address and the port. Raises OSError."""
        self._controller.begin()  # type: ignore[no-untyped-call]
        assert isinstance(self._controller.server, asyncio.Server)
        host, port = self._controller.server.sockets[0].getsockname()[:2]
        return Listen(host, port)

    def serve(self) -> None:
        """Take messages until `stop`, the last message of `count`, or a line that cannot be printed."""
        self.loop.run_until_complete(self._serve())

    def stop(self) -> None:
        """From the loop's own thread."""
        self.handler.ending = True
        self._stopped.set()

    def close(self) -> None:
        """Free the sockets and the loop; also after an `open` that failed."""
        if self._controller.server is not None:
            # From Python 3.12 on it waits for every connection, and a client that reads no reply keeps its own open.
            with contextlib.suppress(TimeoutError):
                finalize = self._controller.finalize()  # type: ignore[no-untyped-call]
                self.loop.run_until_complete(asyncio.wait_for(finalize, _GRACE))
        self.loop.close()

    async def _serve(self) -> None:
        await self._stopped.wait()
        assert self._controller.server is not None
        self._controller.server.close()
        # Every other task of this loop is a session of aiosmtpd, which closes its connection when it is cancelled.
        sessions = asyncio.all_tasks() - {asyncio.current_task()}
        if sessions:
            _, open_still = await asyncio.wait(sessions, timeout=_GRACE)
            for session in open_still:
                session.cancel()
            await asyncio.gather(*open_still, return_exceptions=True)
            await asyncio.sleep(0)  # the transports close in the next round of the loop


def _received(session: Session, envelope: Envelope) -> ReceivedMessage:
    assert envelope.original_content is not None
    return ReceivedMessage(
        at=datetime.datetime.now().astimezone(),
        client=session.peer[0] if session.peer else "",
        helo=session.host_name or "",
        reverse_path=_reverse_path(envelope),
        recipients=tuple(envelope.rcpt_tos),
        mail_options=tuple(envelope.mail_options),
        rcpt_options=tuple(envelope.rcpt_options),
        content=envelope.original_content,
    )


def _reverse_path(envelope: Envelope) -> str:
    """aiosmtpd has "<>" for the null reverse-path."""
    return "" if envelope.mail_from in (None, "<>") else str(envelope.mail_from)
