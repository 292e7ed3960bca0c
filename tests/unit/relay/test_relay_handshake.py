"""Connecting: greeting, EHLO and HELO, STARTTLS with every kind of failure, AUTH, and hostile hosts."""

import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from paquebot.relay.outcome import HostUnusable, RelayResult
from paquebot.relay.settings import TlsPolicy
from paquebot.relay.smtp_client.tls import TlsMemory, TlsMode
from paquebot.runtime.settings import Secret
from paquebot.wire.sasl import Credentials
from paquebot.wire.smtp.extensions import size_limit
from tests.support.relay_fixtures import (
    SHORT,
    SHORT_TIMEOUTS,
    TIMEOUTS,
    Authority,
    authority,
    handshake,
    host_of,
    session_with,
)
from tests.support.remote_host import BREAK_TLS, DROP, RESET, SILENT, Answer, RemoteHost, then_drop


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("certificates"))


async def refused(remote: RemoteHost, **options: object) -> HostUnusable:
    with pytest.raises(HostUnusable) as caught:
        await session_with(remote, **options)  # type: ignore[arg-type]
    return caught.value


async def test_the_reply_to_ehlo_lists_extensions() -> None:
    async with RemoteHost(extensions=("SIZE 1000", "PIPELINING", "AUTH=LOGIN", "AUTH PLAIN")) as remote:
        session = await session_with(remote)
        assert session.extensions.keys() == {"SIZE", "PIPELINING", "AUTH"}
        assert session.extensions["AUTH"].split() == ["LOGIN", "PLAIN"]
        assert size_limit(session.extensions) == 1000
        assert remote.commands() == ["EHLO relay.example.org"]
        session.leave()
        await remote.until(lambda: remote.connections[0].closed)
        assert remote.commands()[-1] == "QUIT"


async def test_helo_for_a_host_without_ehlo() -> None:  # RFC 5321 §3.2
    async with RemoteHost({"EHLO": "502 5.5.1 What?"}) as remote:
        session = await session_with(remote)
        assert session.extensions == {}
        assert remote.commands() == ["EHLO relay.example.org", "HELO relay.example.org"]
        session.leave()


@pytest.mark.parametrize(
    ("greeting", "outcome", "status"),
    [
        ("421 4.3.2 Busy", RelayResult.DEFERRED, "4.3.2"),
        ("450 Later", RelayResult.DEFERRED, "4.0.0"),
        ("554 5.7.1 Go away", RelayResult.FAILED, "5.7.1"),
        ("521 No mail here", RelayResult.FAILED, "5.0.0"),  # RFC 7504
    ],
)
async def test_a_host_that_greets_with_a_refusal(greeting: str, outcome: RelayResult, status: str) -> None:
    async with RemoteHost({"CONNECT": greeting}) as remote:
        error = await refused(remote)
        assert (error.outcome.result, error.outcome.status) == (outcome, status)
        assert error.outcome.elsewhere
        assert error.outcome.text == greeting.replace("  ", " ")


@pytest.mark.parametrize(
    ("script", "status", "text"),
    [
        ({"CONNECT": DROP}, "4.4.2", "connection closed during connection"),
        ({"EHLO": DROP}, "4.4.2", "connection closed during EHLO"),
        ({"CONNECT": SILENT}, "4.4.2", "timed out waiting for the reply to connection"),
        ({"EHLO": SILENT}, "4.4.2", "timed out waiting for the reply to EHLO"),
        ({"CONNECT": "SSH-2.0-OpenSSH_9.2"}, "4.5.0", "reply to connection is not SMTP"),
        ({"CONNECT": "220-a\r\n250 b"}, "4.5.0", "250 a b"),
        ({"CONNECT": "220 " + "x" * 1_100_000}, "4.5.0", "reply to connection is not SMTP"),
        ({"EHLO": "421 4.3.2 Shutting down"}, "4.3.2", "421 4.3.2 Shutting down"),
    ],
)
async def test_a_host_that_misbehaves_is_tried_later(script: dict[str, str], status: str, text: str) -> None:
    async with RemoteHost(script) as remote:  # type: ignore[arg-type]
        error = await refused(remote, timeouts=SHORT_TIMEOUTS)
        assert error.outcome.result is RelayResult.DEFERRED
        assert error.outcome.status == status
        assert error.outcome.text.startswith(text)


@pytest.mark.parametrize(
    "script",
    [
        {"CONNECT": "220 " + "x" * 100_000},
        {"CONNECT": "220-" + "x" * 100_000 + "\r\n220 y"},
        {"EHLO": "250-x\r\n250-PIPELINING\r\n" + "250-Y\r\n" * 1000 + "250 z"},
        {"EHLO": "250-x\r\n250-PIPELINING\r\nno code\r\n250 z"},
    ],
)
async def test_a_long_reply_is_read_to_its_end(script: dict[str, str]) -> None:
    async with RemoteHost(script) as remote:  # type: ignore[arg-type]
        session = await session_with(remote)
        assert ("PIPELINING" in session.extensions) is ("EHLO" in script) or "CONNECT" in script
        assert (await session.command("RSET", 5, "RSET")).text == "Ok"
        session.leave()


async def test_connection_refused() -> None:
    async with RemoteHost() as remote:
        host = host_of(remote)
    with pytest.raises(HostUnusable) as caught:
        await handshake().open(host, TlsPolicy.OPPORTUNISTIC)
    assert caught.value.outcome.status == "4.4.1"
    assert caught.value.outcome.text == "cannot connect: connection refused"


async def test_tls_with_a_verified_certificate(certificates: Authority) -> None:
    async with RemoteHost(tls=certificates.good) as remote:
        session = await session_with(remote, policy=TlsPolicy.VERIFY, ca=certificates.ca)
        assert session.tls == "TLSv1.3"
        # RFC 3207 §4.2: EHLO again after the handshake
        assert remote.commands() == ["EHLO relay.example.org", "STARTTLS", "EHLO relay.example.org"]
        assert "STARTTLS" not in session.extensions
        session.leave()


async def test_helo_for_a_host_without_ehlo_after_tls(certificates: Authority) -> None:
    async with RemoteHost(tls=certificates.good) as remote:
        remote.on["EHLO"] = lambda line: "502 5.5.1 What?" if remote.connections[-1].tls else ""
        session = await session_with(remote, policy=TlsPolicy.ENCRYPT)
        assert (session.tls, session.extensions) == ("TLSv1.3", {})
        assert remote.commands(1)[-1] == "HELO relay.example.org"
        session.leave()


async def test_a_bad_certificate_is_tolerated_and_remembered(certificates: Authority) -> None:  # RFC 7435
    memory = TlsMemory()
    opener = handshake(memory=memory)
    async with RemoteHost(tls=certificates.self_signed) as remote:
        host = host_of(remote)
        session = await opener.open(host, TlsPolicy.OPPORTUNISTIC)
        assert session.tls == "TLSv1.3"
        assert len(remote.connections) == 2
        assert memory.modes(host, TlsPolicy.OPPORTUNISTIC)[0] is TlsMode.UNVERIFIED
        again = await opener.open(host, TlsPolicy.OPPORTUNISTIC)
        assert again.tls
        assert len(remote.connections) == 3, "the second time there is no verified attempt"
        session.leave()
        again.leave()


async def test_a_bad_certificate_is_refused_by_policy(certificates: Authority) -> None:
    async with RemoteHost(tls=certificates.self_signed) as remote:
        error = await refused(remote, policy=TlsPolicy.VERIFY)
        assert (error.outcome.result, error.outcome.status) == (RelayResult.DEFERRED, "4.7.5")
        assert "self-signed certificate" in error.outcome.text


async def test_a_certificate_for_another_name_is_refused_by_policy(certificates: Authority) -> None:
    async with RemoteHost(tls=certificates.good) as remote:
        with pytest.raises(HostUnusable) as caught:
            await handshake(ca=certificates.ca).open(host_of(remote, "other.example.net"), TlsPolicy.VERIFY)
        assert "doesn't match" in caught.value.outcome.text.lower() or "mismatch" in caught.value.outcome.text.lower()


@pytest.mark.parametrize("name", ["a..example.net", r"\200" * 20 + ".example.net", ".example.net", ""])
async def test_a_name_that_no_certificate_can_have(name: str, certificates: Authority) -> None:
    """DNS allows such a name for an exchanger; TLS works with it, but no certificate can have it."""
    async with RemoteHost(tls=certificates.good) as remote:
        session = await handshake(ca=certificates.ca).open(host_of(remote, name), TlsPolicy.OPPORTUNISTIC)
        assert session.tls == "TLSv1.3"
        session.leave()
        with pytest.raises(HostUnusable) as caught:
            await handshake(ca=certificates.ca).open(host_of(remote, name), TlsPolicy.VERIFY)
        assert caught.value.outcome.status == "4.7.5"


async def test_an_address_literal_is_verified_by_its_address(certificates: Authority) -> None:
    async with RemoteHost(tls=certificates.good, address="127.0.0.9") as remote:
        session = await handshake(ca=certificates.ca).open(host_of(remote, "[127.0.0.9]"), TlsPolicy.VERIFY)
        assert session.tls
        session.leave()


async def test_a_failed_handshake_falls_back_to_clear_text(certificates: Authority) -> None:
    async with RemoteHost({"STARTTLS": BREAK_TLS}, tls=certificates.good) as remote:
        session = await session_with(remote)
        assert session.tls == ""
        assert len(remote.connections) == 2
        assert remote.commands(1) == ["EHLO relay.example.org"]
        session.leave()


async def test_a_failed_handshake_ends_the_attempt_where_tls_is_required(certificates: Authority) -> None:
    async with RemoteHost({"STARTTLS": BREAK_TLS}, tls=certificates.good) as remote:
        error = await refused(remote, policy=TlsPolicy.ENCRYPT)
        assert error.outcome.status == "4.7.5"
        assert all("MAIL" not in line for line in remote.all_commands)


async def test_after_a_refused_starttls_mail_goes_in_clear_on_the_same_connection(certificates: Authority) -> None:
    async with RemoteHost({"STARTTLS": "454 4.7.0 Not now"}, tls=certificates.good) as remote:
        session = await session_with(remote)
        assert session.tls == ""
        assert len(remote.connections) == 1
        session.leave()


@pytest.mark.parametrize("script", [{}, {"STARTTLS": "454 4.7.0 Not now"}])
async def test_no_tls_where_it_is_required(script: dict[str, str], certificates: Authority) -> None:
    tls = certificates.good if script else None
    async with RemoteHost(script, tls=tls) as remote:  # type: ignore[arg-type]
        error = await refused(remote, policy=TlsPolicy.ENCRYPT)
        assert error.outcome.result is RelayResult.DEFERRED
        assert error.outcome.status in ("4.7.4", "4.7.0")


pytestmark = pytest.mark.slow  # each talks to a host over a socket
BREAKS_AT_STARTTLS: dict[str, Answer] = {
    "hangs up": DROP,
    "resets": RESET,
    "no reply": SILENT,
    "not a reply": "SSH-2.0-OpenSSH_9.2",
    "refuses and hangs up": then_drop("454 4.7.0 TLS not available"),
    "closes": "421 4.7.0 TLS not available, closing",
    "hangs up behind 220": then_drop("220 2.0.0 Ready"),
    "more replies in clear": "220 2.0.0 Ready\r\n250 injected",
}


@pytest.mark.parametrize("name", BREAKS_AT_STARTTLS)
async def test_a_host_that_fails_at_starttls_gets_mail_in_clear(name: str, certificates: Authority) -> None:
    """RFC 7435 §3: better than no mail. The relay remembers the host, so that it does not fail for each message."""
    memory = TlsMemory()
    opener = handshake(timeouts=replace(TIMEOUTS, starttls=SHORT), memory=memory)
    async with RemoteHost({"STARTTLS": BREAKS_AT_STARTTLS[name]}, tls=certificates.good) as remote:
        host = host_of(remote)
        session = await opener.open(host, TlsPolicy.OPPORTUNISTIC)
        assert (session.tls, session.alive) == ("", True)
        assert (await session.command("RSET", 5, "RSET")).code == 250
        assert remote.commands(1) == ["EHLO relay.example.org", "RSET"]
        again = await opener.open(host, TlsPolicy.OPPORTUNISTIC)
        assert sum(line == "STARTTLS" for line in remote.all_commands) == 1
        session.leave()
        again.leave()


@pytest.mark.parametrize("name", BREAKS_AT_STARTTLS)
@pytest.mark.parametrize("policy", [TlsPolicy.ENCRYPT, TlsPolicy.VERIFY])
async def test_never_in_clear_where_tls_is_required(name: str, policy: TlsPolicy, certificates: Authority) -> None:
    memory = TlsMemory()
    opener = handshake(timeouts=replace(TIMEOUTS, starttls=SHORT), memory=memory)
    async with RemoteHost({"STARTTLS": BREAKS_AT_STARTTLS[name]}, tls=certificates.good) as remote:
        memory.remember(host_of(remote), TlsMode.CLEAR)  # as after mail under another policy
        with pytest.raises(HostUnusable) as caught:
            await opener.open(host_of(remote), policy)
        assert caught.value.outcome.result is RelayResult.DEFERRED
        assert len(remote.connections) == 1
        assert remote.all_commands[:2] == ["EHLO relay.example.org", "STARTTLS"]
        assert not any(line.startswith(("MAIL", "AUTH")) for line in remote.all_commands)


async def test_a_host_that_cannot_be_reached_is_not_remembered(certificates: Authority) -> None:
    """The host became unreachable at STARTTLS, which does not prove that its TLS fails."""
    memory = TlsMemory()
    async with RemoteHost({"STARTTLS": DROP}, tls=certificates.good) as remote:
        greetings = iter(("220 Hello", "421 4.3.2 Going down"))
        remote.on["CONNECT"] = lambda line: next(greetings)
        with pytest.raises(HostUnusable):
            await handshake(memory=memory).open(host_of(remote), TlsPolicy.OPPORTUNISTIC)
        assert memory.modes(host_of(remote), TlsPolicy.OPPORTUNISTIC)[0] is TlsMode.VERIFIED


@pytest.mark.parametrize("mechanism", ["AUTH PLAIN LOGIN", "AUTH LOGIN"])
async def test_login_at_a_smart_host(mechanism: str, certificates: Authority) -> None:
    async with RemoteHost(tls=certificates.good, extensions=(mechanism,)) as remote:
        credentials = Credentials("us", Secret("secret"))
        session = await session_with(remote, policy=TlsPolicy.VERIFY, credentials=credentials, ca=certificates.ca)
        assert remote.connections[0].login == "us"
        session.leave()


async def test_a_refused_login_is_temporary(certificates: Authority) -> None:
    async with RemoteHost(tls=certificates.good, extensions=("AUTH PLAIN",)) as remote:
        wrong = Credentials("us", Secret("wrong"))
        error = await refused(remote, policy=TlsPolicy.VERIFY, credentials=wrong, ca=certificates.ca)
        assert (error.outcome.result, error.outcome.status) == (RelayResult.DEFERRED, "4.7.8")


async def test_no_login_without_tls() -> None:
    async with RemoteHost(extensions=("AUTH PLAIN",)) as remote:
        error = await refused(remote, policy=TlsPolicy.OFF, credentials=Credentials("us", Secret("secret")))
        assert error.outcome.status == "4.7.4"
        assert not any(line.startswith("AUTH") for line in remote.all_commands)


def test_memory_is_bounded_in_time(tmp_path: Path) -> None:
    now = 0.0
    memory = TlsMemory(lambda: now)
    host = host_of(RemoteHost())
    memory.remember(host, TlsMode.CLEAR)
    assert memory.modes(host, TlsPolicy.OPPORTUNISTIC) == (TlsMode.CLEAR,)
    assert memory.modes(host, TlsPolicy.ENCRYPT) == (TlsMode.VERIFIED, TlsMode.UNVERIFIED), "never outside the policy"
    now = 3600.0
    assert memory.modes(host, TlsPolicy.OPPORTUNISTIC)[0] is TlsMode.VERIFIED


async def test_the_reply_before_a_drop_is_read() -> None:
    async with RemoteHost({"CONNECT": then_drop("421 4.3.2 Too busy")}) as remote:
        error = await refused(remote)
        assert error.outcome.text == "421 4.3.2 Too busy"


def test_tls_below_1_2_is_not_used() -> None:  # RFC 8996
    from paquebot.relay.smtp_client.tls import TlsContexts

    for mode in (TlsMode.VERIFIED, TlsMode.UNVERIFIED):
        assert TlsContexts().of(mode).minimum_version == ssl.TLSVersion.TLSv1_2
