"""For any message, address and reply of the host, each recipient gets a result with a reason, and the relay raises no
unexpected error."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paquebot.relay.courier import Courier, CourierResult
from paquebot.relay.message import RelayRecipient
from paquebot.relay.outcome import Outcomes, RelayResult
from paquebot.relay.progress import AttemptProgress
from paquebot.relay.queue.hosts import HostShares
from paquebot.relay.routing.resolver import Resolver
from paquebot.relay.routing.routes import Routes
from paquebot.relay.settings import RelayLoadSettings, RetrySettings, RoutingSettings, SmtpClientSettings, SmtpTimeouts
from paquebot.relay.smtp_client.pool import SessionPool
from paquebot.relay.smtp_client.transaction import rcpt_parameters
from paquebot.runtime.settings import Seconds
from paquebot.wire.address import Address
from tests.support.relay_fixtures import handshake, outgoing
from tests.support.remote_host import DROP, KEEP_THEN_DROP, RESET, SILENT, RemoteHost, then_drop

pytestmark = pytest.mark.slow

SOON = Seconds(0.1)
TIMEOUTS = SmtpTimeouts(*(SOON,) * 7, starttls=SOON)
STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")

REPLY = st.one_of(
    st.sampled_from(
        [DROP, RESET, SILENT, KEEP_THEN_DROP, "", "250", "250-", "421 x", "354", "550-a\r\n550 b", "999 x"]
    ),
    st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape")),
    st.tuples(st.sampled_from([220, 250, 354, 450, 550, 552, 199]), st.binary(max_size=20)).map(
        lambda reply: f"{reply[0]} {reply[1].decode('utf-8', 'surrogateescape')}"
    ),
    st.just(then_drop("250 2.0.0 Ok")),
)
SCRIPTS = st.dictionaries(
    st.sampled_from(["CONNECT", "EHLO", "HELO", "MAIL", "RCPT", "DATA", "MESSAGE", "RSET", "QUIT"]), REPLY, max_size=3
)
OFFERED = st.lists(
    st.one_of(
        st.sampled_from(["8BITMIME", "CHUNKING", "SMTPUTF8", "PIPELINING", "DSN", "SIZE 9"]), st.text(max_size=9)
    ),
    max_size=5,
).map(lambda words: tuple(word for word in words if not re.search(r"[\r\n]", word)))
LOCAL = st.text(min_size=1, max_size=90).filter(lambda text: not re.search(r"[\x00-\x1f\x7f-\x9f]", text))
PATHS = LOCAL.map(lambda local: str(Address(local, "example.net")))
CONTENT = st.lists(
    st.one_of(st.binary(max_size=40), st.sampled_from([b"\r\n", b"\n", b"x" * 1500, b"\xff" * 1000, b"\r\n.\r\n"])),
    max_size=8,
).map(b"".join)


async def carried(remote: RemoteHost, content: bytes, paths: list[str], reverse_path: str, orcpt: str) -> CourierResult:
    client = SmtpClientSettings(attempt=Seconds(5.0))
    resolver = Resolver(RoutingSettings(), "relay.example.org", remote.port, lambda exchangers: None)
    hosts = HostShares(RelayLoadSettings(), RetrySettings(), lambda: 0.0)
    pool = SessionPool(handshake(timeouts=TIMEOUTS), client)
    courier = Courier(resolver, pool, hosts, client, TIMEOUTS)
    route = Routes([f"example.net=[127.0.0.1]:{remote.port}"]).route("example.net")

    async def on_delivered(outcomes: Outcomes) -> None:
        assert all(result.result is RelayResult.DELIVERED for result in outcomes.values())

    message = outgoing(content, reverse_path, envid=orcpt, smtputf8=True)
    try:
        recipients = [RelayRecipient(path, rcpt_parameters([1, 77], orcpt)) for path in paths]
        return await courier.carry(message, route, recipients, on_delivered, AttemptProgress())
    finally:
        message.close()
        pool.close()


@given(SCRIPTS, OFFERED, CONTENT, st.lists(PATHS, min_size=1, max_size=3, unique=True), PATHS, st.text(max_size=9))
@settings(max_examples=30, deadline=None)
async def test_every_recipient_has_a_result_with_a_reason(
    script: dict[str, object], offered: tuple[str, ...], content: bytes, paths: list[str], reverse_path: str, orcpt: str
) -> None:
    async with RemoteHost(script, extensions=offered) as remote:  # type: ignore[arg-type]
        found = await carried(remote, content, paths, reverse_path, orcpt)
    assert not found.busy
    assert found.outcomes.keys() == set(paths)
    for result in found.outcomes.values():
        assert STATUS.fullmatch(result.status)
        assert result.text
        assert result.text.isprintable()
        if result.result is RelayResult.DELIVERED and not script.keys() & {"DATA", "MESSAGE"}:
            assert remote.messages, "only a host that has the message can have accepted it"
        if result.result is not RelayResult.DELIVERED:
            assert result.status[0] == ("5" if result.result is RelayResult.FAILED else "4")
