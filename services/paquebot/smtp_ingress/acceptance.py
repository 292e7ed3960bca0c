"""From a message that was read whole to its reply: policy, trace header, envelope, spool.

Invariant: the reply is 250 only after `spool.accept_prepared` has returned (invariant 1). Any other end is 4yz or 5yz.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from paquebot.blobs import new_ulid
from paquebot.message import (
    add_trace,
    ensure_date_and_message_id,
    is_looping,
    remove_authentication_results,
    remove_header,
    split_header,
)
from paquebot.observability.log import Log, shown
from paquebot.rpc import DirectoryUnavailable
from paquebot.smtp_ingress import metrics
from paquebot.smtp_ingress.authorship import Authorship
from paquebot.smtp_ingress.errors import message_reply_to_login_end, reply_to
from paquebot.smtp_ingress.offload import offload
from paquebot.smtp_ingress.received import TracePolicy, protocol, received
from paquebot.smtp_ingress.state import MailTransaction, SessionState
from paquebot.spool import Prepared, Spool, SpoolRefused, SpoolUnavailable
from paquebot.v1.mail_pb2 import Envelope
from paquebot.wire.smtp import replies
from paquebot.wire.smtp.content import BadContent
from paquebot.wire.smtp.parameters import Body
from paquebot.wire.smtp.replies import Reply

_log = Log("paquebot.smtp")
_MAX_HEADER_LINES = 25_000  # the event loop reads each a few times


@dataclass(frozen=True, slots=True)
class AcceptancePolicy:
    """`size`: maximum bytes of a message; `header`: of its header; `hops`: maximum Received fields."""

    trace: TracePolicy
    size: int
    header: int
    hops: int
    check_from: bool


class Acceptance:
    """One for a process."""

    def __init__(
        self,
        spool: Spool,
        authorship: Authorship,
        policy: AcceptancePolicy,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._spool = spool
        self.authorship = authorship
        self._policy = policy
        self._clock = clock

    def begin(self) -> None:
        """A transaction has begun: a commit may wait a moment for its message."""
        self._spool.join()

    def end(self) -> None:
        """Undo `begin`."""
        self._spool.leave()

    async def accept(
        self, state: SessionState, transaction: MailTransaction, decode: Callable[[], bytes], size: int
    ) -> Reply:
        """The final reply to the message that `decode` returns (it raises BadContent), of about `size` bytes."""
        start = time.perf_counter()
        try:
            reply = await self._decide(state, transaction, decode, size)
        except BadContent as error:
            reply = reply_to(error, state)
        metrics.ACCEPT_SECONDS_BY_ROLE[state.role].observe(time.perf_counter() - start)
        return reply

    async def _decide(
        self, state: SessionState, transaction: MailTransaction, decode: Callable[[], bytes], size: int
    ) -> Reply:
        """At most two forms of the message are in memory at once: each is dropped once the next was made of it."""
        content = await offload(size, decode)
        checked = await self._checked(state, transaction, content)
        if isinstance(checked, Reply):
            _log.info("message_refused", session=state.id, client=state.address, reply=str(checked))
            return checked
        content = checked
        del checked
        if state.login is not None and state.login.end is not None:  # it ended while the message was read
            return message_reply_to_login_end(state.login.end)
        queue_id = new_ulid()
        now = self._clock()
        envelope = _envelope(state, transaction, content)
        envelope.queue_id = queue_id
        envelope.accepted_at_ms = int(now * 1000)
        content = await self._with_trace(state, transaction, content, queue_id, datetime.fromtimestamp(now, UTC))
        transaction.span.set(queue_id=queue_id, size=len(content))
        prepared = await self._spool.prepare(content)
        del content
        return await self._store(state, envelope, prepared)

    async def _store(self, state: SessionState, envelope: Envelope, prepared: Prepared) -> Reply:
        try:
            await self._spool.accept_prepared(envelope, prepared)
        except SpoolRefused as error:
            _log.warning("spool_refused", session=state.id, queue_id=envelope.queue_id, reason=str(error))
            return reply_to(error, state)
        except SpoolUnavailable as error:
            _log.warning("spool_unavailable", session=state.id, queue_id=envelope.queue_id, reason=str(error))
            return reply_to(error, state)
        metrics.MESSAGE_BYTES.observe(prepared.size)
        _log.info(
            "message_accepted",
            queue_id=envelope.queue_id,
            session=state.id,
            client=state.address,
            listener=state.role.value,
            reverse_path=shown(envelope.reverse_path),
            local=len(envelope.local),
            remote=len(envelope.remote),
            size=prepared.size,
            trace=envelope.trace,
        )
        return replies.queued(envelope.queue_id)

    async def _checked(self, state: SessionState, transaction: MailTransaction, content: bytes) -> bytes | Reply:
        """The message as the policy allows it, or the refusal."""
        refusal = await offload(split_header(content), lambda: self._refusal(content))
        if refusal is not None:
            return refusal
        if state.identity is None or not self._policy.check_from:
            return content
        try:
            return await self.authorship.checked(state, transaction, content)
        except DirectoryUnavailable as error:
            return reply_to(error, state)

    def _refusal(self, content: bytes) -> Reply | None:
        """Why the message is refused, from any sender."""
        if len(content) > self._policy.size:
            return replies.TOO_BIG
        header = split_header(content)
        if header > self._policy.header or content.count(b"\n", 0, header) > _MAX_HEADER_LINES:
            return replies.HEADER_TOO_BIG
        return replies.TOO_MANY_HOPS if is_looping(content, self._policy.hops) else None

    async def _with_trace(
        self, state: SessionState, transaction: MailTransaction, content: bytes, queue_id: str, now: datetime
    ) -> bytes:
        """The message as it is stored (invariant 5: its bytes never change afterwards)."""
        policy, submitted = self._policy.trace, state.role.takes_logins
        # RFC 5321 §4.4: final delivery writes the one Return-Path, originators send none; a mere relay leaves it alone.
        delivered = bool(transaction.recipients.local) or not state.relay_client
        return await offload(
            split_header(content),
            lambda: add_trace(
                _completed(content, queue_id, now, policy.hostname, delivered=delivered, submitted=submitted),
                received(state, transaction, queue_id, now, policy),
            ),
        )


def _completed(
    content: bytes, queue_id: str, now: datetime, hostname: str, *, delivered: bool, submitted: bool
) -> bytes:
    """Without fields that only this server may write, and with those that a submitted message must have."""
    content = remove_authentication_results(content, hostname)
    if delivered:
        content = remove_header(content, b"return-path", lambda value: True)
    return ensure_date_and_message_id(content, now, f"<{queue_id}@{hostname}>") if submitted else content


def _envelope(state: SessionState, transaction: MailTransaction, content: bytes) -> Envelope:
    parameters = transaction.parameters
    recipients = transaction.recipients
    ascii_content = content.isascii()
    smtputf8 = parameters.smtputf8 and _is_internationalised(transaction, content, ascii_content=ascii_content)
    envelope = Envelope(
        reverse_path=str(transaction.reverse_path),
        local=recipients.local,
        remote=recipients.remote,
        ret=parameters.ret.value if parameters.ret else 0,  # type: ignore[arg-type]
        envid=parameters.envid,
        smtputf8=smtputf8,
        eight_bit=parameters.body is Body.EIGHT_BIT_MIME or not ascii_content,
        trace=transaction.trace,
    )
    client = envelope.client
    client.address = state.address
    client.helo = state.hello.name if state.hello else ""
    client.login = state.identity.address if state.identity else ""
    client.protocol = protocol(state, smtputf8=parameters.smtputf8)
    client.listener = state.role.value
    return envelope


def _is_internationalised(transaction: MailTransaction, content: bytes, *, ascii_content: bool) -> bool:
    """RFC 6531 §3.2: only a path or a header beyond ASCII needs SMTPUTF8 at the next hop; some clients always ask."""
    paths = [str(transaction.reverse_path), *transaction.recipients.paths]
    paths += [remote.forward_path for remote in transaction.recipients.remote]
    if not all(path.isascii() for path in paths):
        return True
    return not ascii_content and not content[: split_header(content)].isascii()
