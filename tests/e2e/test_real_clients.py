"""Debian's curl, mbsync, fetchmail and mutt against a whole platform, with the certificate verified; skipped where they
are missing."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from paquebot.cli.demo.accounts import DEMO_PASSWORD
from tests.e2e.platforms import Platform, until

DEADLINE = 60.0
MESSAGE = b"From: alice@here.test\r\nTo: bob@here.test\r\nSubject: %s\r\n\r\nhello\r\n.dot\r\n..two\r\n"
MBSYNC_SETTINGS = """
IMAPAccount platform
Host localhost
Port {port}
User {account}
Pass {password}
SSLType IMAPS
CertificateFile {certificate}

IMAPStore far
Account platform

MaildirStore near
Path {maildir}/
Inbox {maildir}/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Remove Both
Expunge Both
SyncState *
"""

FETCHMAIL_SETTINGS = """
poll localhost protocol {protocol} port {port} {options}
 user "{account}" password "{password}" is root here
 {tls} sslcertck sslcertfile "{certificate}" {keep}
 mda "cat >> {mailbox}"
"""
MUTT_SETTINGS = """
set folder="imaps://{account}@localhost:{imaps}/"
set spoolfile="+INBOX" record="+Sent" copy=yes
set imap_user="{account}" imap_pass="{password}"
set smtp_url="smtp://{account}@localhost:{submission}/" smtp_pass="{password}"
set ssl_force_tls=yes ssl_starttls=yes ssl_verify_host=yes
set ssl_ca_certificates_file="{certificate}" certificate_file="{certificate}"
set from="{account}" use_from=yes realname="Alice"
"""

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
needs_fetchmail = pytest.mark.skipif(shutil.which("fetchmail") is None, reason="fetchmail is not installed")
needs_mutt = pytest.mark.skipif(shutil.which("mutt") is None, reason="mutt is not installed")
needs_mbsync = pytest.mark.skipif(shutil.which("mbsync") is None, reason="mbsync (isync) is not installed")


async def run(*command: str) -> tuple[int, bytes]:
    """The exit code and everything the client said."""

    def blocking() -> tuple[int, bytes]:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=DEADLINE, check=False)
        return done.returncode, done.stdout

    return await asyncio.to_thread(blocking)


async def curl(platform: Platform, name: str, password: str, *arguments: str) -> tuple[int, bytes]:
    login = f"{platform.address(name)}:{password}"
    certificate = str(platform.plan.authority)
    return await run("curl", "-sS", "--ssl-reqd", "--cacert", certificate, "-u", login, *arguments)


@needs_curl
async def test_curl_submits_reads_appends_and_removes(platforms: tuple[Platform, Platform], tmp_path: Path) -> None:
    here, _ = platforms
    ports = here.plan.ports.services
    content = tmp_path / "curl.eml"
    content.write_bytes(MESSAGE % b"sent with curl")
    path = ("--mail-from", here.address("alice"), "--mail-rcpt", here.address("bob"), "-T", str(content))
    assert await curl(here, "alice", DEMO_PASSWORD, f"smtp://localhost:{ports.submission}", *path) == (0, b"")
    await until(lambda: "sent with curl" in here.subjects("bob"), "the message in bob's mailbox")

    imaps = f"imaps://localhost:{ports.imaps}"
    code, found = await curl(here, "bob", DEMO_PASSWORD, f"{imaps}/INBOX?SUBJECT%20%22sent%20with%20curl%22")
    assert (code, found[:8]) == (0, b"* SEARCH")
    number = found.split()[2].decode()
    code, body = await curl(here, "bob", DEMO_PASSWORD, f"{imaps}/INBOX;MAILINDEX={number};SECTION=TEXT")
    assert (code, body) == (0, b"hello\r\n.dot\r\n..two\r\n")
    assert (await curl(here, "bob", DEMO_PASSWORD, f"{imaps}/Archive", "-T", str(content)))[0] == 0
    assert here.subjects("bob", "Archive") == ["sent with curl"]

    pop3 = f"pop3://localhost:{ports.pop3}/{number}"
    code, whole = await curl(here, "bob", DEMO_PASSWORD, pop3)
    assert code == 0
    assert whole.endswith(b"\r\n\r\nhello\r\n.dot\r\n..two\r\n")
    assert (await curl(here, "bob", DEMO_PASSWORD, "-l", "-X", "DELE", pop3))[0] == 0
    await until(lambda: "sent with curl" not in here.subjects("bob"), "the message to be removed at QUIT")


@needs_curl
async def test_curl_tells_refusals_apart(platforms: tuple[Platform, Platform], tmp_path: Path) -> None:
    here, _ = platforms
    ports = here.plan.ports.services
    content = tmp_path / "refused.eml"
    content.write_bytes(MESSAGE % b"refused")
    url = f"smtps://localhost:{ports.submissions}"
    path = ("--mail-from", here.address("alice"), "-T", str(content))
    code, said = await curl(here, "alice", DEMO_PASSWORD, url, *path, "--mail-rcpt", here.address("nobody"))
    assert (code, b"550" in said) == (55, True)  # CURLE_SEND_ERROR
    for address in (url, f"imaps://localhost:{ports.imaps}", f"pop3s://localhost:{ports.pop3s}"):
        code, _ = await curl(here, "alice", "wrong", address)
        assert code == 67, address  # CURLE_LOGIN_DENIED
    code, said = await run("curl", "-sS", f"imaps://localhost:{ports.imaps}")
    assert (code, b"certificate" in said) == (60, True)  # CURLE_PEER_FAILED_VERIFICATION: not a CA of the system


@needs_mbsync
async def test_mbsync_keeps_two_maildirs_in_step(platforms: tuple[Platform, Platform], tmp_path: Path) -> None:
    _, there = platforms
    stores = [tmp_path / "one", tmp_path / "two"]
    for store in stores:
        store.mkdir()
        await asyncio.to_thread(_configure, there, store)
    one, two = stores
    mailbox = one / "&AMk-t&AOk- &- co"  # RFC 3501 §5.1.3: "Été & co"
    for part in ("cur", "new", "tmp"):
        (mailbox / part).mkdir(parents=True)
    for number in range(30):
        text = MESSAGE % str(number).encode()
        (mailbox / "cur" / f"{number}.a.b:2,S").write_bytes(text.replace(b"\r\n", b"\n"))
    await sync(one, two)
    before = await asyncio.to_thread(_files, one), await changes(there)
    await sync(one)
    assert (await asyncio.to_thread(_files, one), await changes(there)) == before  # nothing to do
    assert _flags(two / mailbox.name) == dict.fromkeys(range(30), "S")

    _change(mailbox, 1, "FS")
    _change(mailbox, 2, "ST")
    _change(two / mailbox.name, 3, "RS")
    _path(two / mailbox.name, 4).unlink()
    await sync(one, two, one)
    expected = {number: "S" for number in range(30) if number not in (2, 4)} | {1: "FS", 3: "RS"}
    assert _flags(mailbox) == _flags(two / mailbox.name) == expected
    assert len(there.subjects("alice", '"&AMk-t&AOk- &- co"')) == 28


@needs_fetchmail
@pytest.mark.parametrize("protocol", ["POP3", "POP3 with STLS", "IMAP"])
async def test_fetchmail_fetches_a_message_once(
    platforms: tuple[Platform, Platform], tmp_path: Path, protocol: str
) -> None:
    here, _ = platforms
    subject = f"for fetchmail, {protocol}"
    with here.mx() as client:
        client.sendmail("x@example.net", here.address("bob"), MESSAGE % subject.encode())
    await until(lambda: subject in here.subjects("bob"), "the message in bob's mailbox")
    ports, pop3 = here.plan.ports.services, protocol.startswith("POP3")
    stls = protocol.endswith("STLS")
    mailbox, settings = tmp_path / "mailbox", tmp_path / "fetchmailrc"
    settings.touch(mode=0o600)
    settings.write_text(
        FETCHMAIL_SETTINGS.format(
            protocol=protocol.partition(" ")[0],
            port=(ports.pop3 if stls else ports.pop3s) if pop3 else ports.imaps,
            options="uidl" if pop3 else "",
            account=here.address("bob"),
            password=DEMO_PASSWORD,
            tls="sslproto TLS1.2+" if stls else "ssl",
            certificate=here.plan.authority,
            keep="keep" if pop3 else "fetchall",
            mailbox=mailbox,
        )
    )
    command = ("env", f"FETCHMAILHOME={tmp_path}", "fetchmail", "--fetchmailrc", str(settings))
    code, said = await run(*command)
    assert code == 0, said
    fetched = mailbox.read_text()
    assert f"Subject: {subject}\n\nhello\n.dot\n..two\n" in fetched
    code, said = await run(*command)
    assert code == 1, said  # no mail for the user
    assert mailbox.read_text() == fetched
    assert (subject in here.subjects("bob")) == pop3


@needs_mutt
async def test_mutt_sends_and_files_a_copy(platforms: tuple[Platform, Platform], tmp_path: Path) -> None:
    here, _ = platforms
    ports = here.plan.ports.services
    settings, text = tmp_path / "muttrc", tmp_path / "text"
    settings.write_text(
        MUTT_SETTINGS.format(
            account=here.address("alice"),
            password=DEMO_PASSWORD,
            imaps=ports.imaps,
            submission=ports.submission,
            certificate=here.plan.authority,
        )
    )
    text.write_text("Grüße\n.dot\n")
    mutt = f"mutt -F {settings} -s 'sent with mutt' {here.address('bob')} < {text}"
    code, said = await run("env", f"HOME={tmp_path}", "LC_ALL=C.UTF-8", "sh", "-c", mutt)
    assert code == 0, said
    await until(lambda: "sent with mutt" in here.subjects("bob"), "the message in bob's mailbox")
    assert here.subjects("alice", "Sent") == ["sent with mutt"]


async def changes(platform: Platform) -> list[bytes]:
    """What changes with every change of alice's mailboxes."""

    def blocking() -> list[bytes]:
        with platform.imap("alice") as client:
            _, mailboxes = client.list()
            names = [line.partition(b'"/" ')[2].decode() for line in mailboxes if isinstance(line, bytes)]
            return [client.status(name, "(MESSAGES UIDNEXT HIGHESTMODSEQ)")[1][0] for name in names]

    return await asyncio.to_thread(blocking)


async def sync(*stores: Path) -> None:
    for store in stores:
        code, said = await run("mbsync", "-q", "-c", str(store.with_suffix(".rc")), "all")
        assert code == 0, said


def _configure(platform: Platform, store: Path) -> None:
    settings = MBSYNC_SETTINGS.format(
        port=platform.plan.ports.services.imaps,
        account=platform.address("alice"),
        password=DEMO_PASSWORD,
        certificate=platform.plan.authority,
        maildir=store,
    )
    store.with_suffix(".rc").write_text(settings)


def _files(store: Path) -> set[Path]:
    """Maildir's names hold the flags; mbsync's own files begin with a dot."""
    return {path for path in store.rglob("*") if not path.name.startswith(".")}


def _number(path: Path) -> int:
    lines = path.read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Subject: ")).partition(": ")[2])


def _path(mailbox: Path, number: int) -> Path:
    return next(path for part in ("cur", "new") for path in (mailbox / part).iterdir() if _number(path) == number)


def _change(mailbox: Path, number: int, flags: str) -> None:
    path = _path(mailbox, number)
    path.rename(mailbox / "cur" / f"{path.name.partition(':')[0]}:2,{flags}")


def _flags(mailbox: Path) -> dict[int, str]:
    paths = [path for part in ("cur", "new") for path in (mailbox / part).iterdir()]
    return {_number(path): path.name.partition(":2,")[2] for path in paths}
