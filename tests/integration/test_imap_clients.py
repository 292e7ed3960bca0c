"""Real client libraries against the real service: imaplib and imapclient, each in its own thread."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import imaplib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from typing import TypeVar

import imapclient
import pytest

from paquebot.imap.server import ImapServer
from tests.dialogues.dialogue import client_tls
from tests.support.imap_world import PASSWORD, PREFIX, ImapStack, Reader

T = TypeVar("T")


def multipart(subject: str = "Grüße aus Genève") -> bytes:
    """A message with alternatives, an attachment and an embedded message."""
    inner = EmailMessage()
    inner["Subject"] = "inner"
    inner["From"] = "inner@example.org"
    inner.set_content("the innermost text\n")
    mail = EmailMessage()
    mail["Subject"] = subject
    mail["From"] = "Ännchen <anna@example.org>"
    mail["To"] = "reader@imap.test"
    mail["Date"] = "Tue, 03 Mar 2026 09:00:00 +0000"
    mail["Message-ID"] = "<multipart@example.org>"
    mail.set_content("plain Überraschung\n")
    mail.add_alternative("<p>html</p>\n", subtype="html")
    mail.add_attachment(b"\x00\x01attached", maintype="application", subtype="octet-stream", filename="a.bin")
    mail.add_attachment(inner)
    return mail.as_bytes().replace(b"\n", b"\r\n")


@dataclass(slots=True)
class Served:
    stack: ImapStack
    server: ImapServer
    reader: Reader

    @contextlib.contextmanager
    def imaplib(self) -> Iterator[imaplib.IMAP4_SSL]:
        with imaplib.IMAP4_SSL("127.0.0.1", self.server.port("imaps"), ssl_context=client_tls()) as client:
            client.login(self.reader.address, PASSWORD)
            yield client

    @contextlib.contextmanager
    def imapclient(self) -> Iterator[imapclient.IMAPClient]:
        port = self.server.port("imaps")
        with imapclient.IMAPClient("127.0.0.1", port, ssl_context=client_tls(), timeout=20) as client:
            client.login(self.reader.address, PASSWORD)
            yield client


@pytest.fixture
async def served(imap_stack: ImapStack) -> AsyncIterator[Served]:
    async with imap_stack.serving() as server:
        yield Served(imap_stack, server, await imap_stack.reader())


async def in_thread(work: Callable[[], T]) -> T:
    return await asyncio.wait_for(asyncio.to_thread(work), 60)


async def test_imaplib_uses_every_command(served: Served) -> None:
    raw = multipart()

    def work() -> None:
        with served.imaplib() as client:
            assert client.append("INBOX", "(\\Flagged)", imaplib.Time2Internaldate(1_700_000_000), raw)[0] == "OK"
            assert client.select() == ("OK", [b"1"])
            _, found = client.fetch("1", "(RFC822)")
            assert isinstance(found[0], tuple)
            assert found[0][1] == raw
            _, found = client.fetch("1", "(FLAGS INTERNALDATE)")
            assert isinstance(found[0], bytes)
            assert b"\\Flagged" in found[0] and b"\\Seen" in found[0]
            assert b"14-Nov-2023 22:13:20" in found[0]
            assert client.search(None, "FLAGGED")[1] == [b"1"]
            assert client.store("1", "+FLAGS", "(\\Deleted)")[0] == "OK"
            assert client.expunge() == ("OK", [b"1"])
            assert client.create('"a b"')[0] == "OK"
            assert client.rename('"a b"', "cd")[0] == "OK"
            assert client.status("cd", "(MESSAGES)")[1] == [b"cd (MESSAGES 0)"]
            assert client.delete("cd")[0] == "OK"
            assert client.noop()[0] == client.check()[0] == client.close()[0] == "OK"
            assert client.namespace()[1] == [b'(("" "/")) NIL NIL']
            assert client.lsub()[0] == "OK"

    await in_thread(work)


async def test_imaplib_over_starttls(served: Served) -> None:
    def work() -> None:
        with imaplib.IMAP4("127.0.0.1", served.server.port("imap")) as client:
            client.starttls(client_tls())
            client.authenticate("PLAIN", lambda _: f"\0{served.reader.address}\0{PASSWORD}".encode())
            assert client.select("INBOX", readonly=True)[0] == "OK"

    await in_thread(work)


async def test_imapclient_reads_structure_and_parts(served: Served) -> None:
    raw = multipart()
    await served.stack.deliver(served.reader, raw)

    def work() -> None:
        with served.imapclient() as client:
            client.select_folder("INBOX")
            (uid,) = client.search("ALL")
            items = ["ENVELOPE", "BODYSTRUCTURE", "RFC822.SIZE", "BODY.PEEK[]", "BODY.PEEK[1.1]", "BODY.PEEK[2]"]
            fetched = client.fetch([uid], items)[uid]
            envelope = fetched[b"ENVELOPE"]
            assert envelope.message_id == b"<multipart@example.org>"
            assert envelope.subject is not None
            assert [address.mailbox for address in envelope.from_] == [b"anna"]
            assert fetched[b"BODYSTRUCTURE"].is_multipart
            assert fetched[b"BODY[]"] == PREFIX + raw
            assert fetched[b"RFC822.SIZE"] == len(PREFIX) + len(raw)
            assert b"=C3=9Cberraschung" in fetched[b"BODY[1.1]"] or "Überraschung".encode() in fetched[b"BODY[1.1]"]
            inner = client.fetch(
                [uid], ["BODY.PEEK[3.HEADER]", "BODY.PEEK[3.TEXT]", "BODY.PEEK[3.1]", "BODY.PEEK[2.MIME]"]
            )[uid]
            assert b"Subject: inner\r\n" in inner[b"BODY[3.HEADER]"]
            assert inner[b"BODY[3.TEXT]"] == inner[b"BODY[3.1]"] == b"the innermost text\r\n"
            assert b'filename="a.bin"' in inner[b"BODY[2.MIME]"]
            assert client.get_flags([uid])[uid] == (b"\\Recent",)

    await in_thread(work)


async def test_sizes_agree_in_every_item(served: Served) -> None:
    """Invariant 5: the recipient's prefix counts in BODY[], HEADER and SIZE alike, and nowhere else."""
    raw = multipart()
    await served.stack.deliver(served.reader, raw)

    def work() -> None:
        with served.imapclient() as client:
            client.select_folder("INBOX")
            items = [
                "RFC822.SIZE",
                "BODY.PEEK[]",
                "BODY.PEEK[HEADER]",
                "BODY.PEEK[TEXT]",
                "BODY.PEEK[HEADER.FIELDS.NOT (X)]",
            ]
            found = client.fetch([1], items)[1]
            assert len(found[b"BODY[]"]) == found[b"RFC822.SIZE"]
            assert found[b"BODY[HEADER]"] + found[b"BODY[TEXT]"] == found[b"BODY[]"]
            assert found[b"BODY[HEADER]"].startswith(PREFIX)
            assert found[b"BODY[HEADER.FIELDS.NOT (X)]"] == found[b"BODY[HEADER]"]
            for offset in (0, 10, len(PREFIX) - 1, len(PREFIX), len(PREFIX) + 5):
                part = client.fetch([1], [f"BODY.PEEK[]<{offset}.40>"])[1][f"BODY[]<{offset}>".encode()]
                assert part == found[b"BODY[]"][offset : offset + 40]

    await in_thread(work)


async def test_imapclient_search_in_any_script(served: Served) -> None:
    await served.stack.deliver(served.reader, multipart(), multipart("nothing to see"))

    def work() -> None:
        with served.imapclient() as client:
            client.select_folder("INBOX")
            # "ß" folds to "ss", in the message and in the search.
            assert client.search(["SUBJECT", "GRÜSSE AUS"], "UTF-8") == [1]
            assert client.search(["SUBJECT", "grüße aus genève"], "UTF-8") == [1]
            assert client.search(["FROM", "ännchen"], "UTF-8") == [1, 2]
            assert client.search(["BODY", "überraschung"], "UTF-8") == [1, 2]
            assert client.search(["TEXT", "innermost"]) == [1, 2]
            assert client.search(["NOT", "SUBJECT", "nothing"]) == [1]
            assert client.search(["SENTON", datetime.date(2026, 3, 3)]) == [1, 2]

    await in_thread(work)


async def test_imapclient_manages_mailboxes_with_any_name(served: Served) -> None:
    def work() -> None:
        with served.imapclient() as client:
            for name in ("Entwürfe & Co", "日本語/メール", 'quote"back\\slash', "{12}", "nil", "100%"):
                if "%" in name:
                    continue
                client.create_folder(name)
                assert name in [found[2] for found in client.list_folders()]
                client.select_folder(name)
                client.append(name, b"Subject: x\r\n\r\ny\r\n")
                client.delete_folder(name)
            special = {flag for flags, _, _ in client.list_folders() for flag in flags}
            assert {b"\\Drafts", b"\\Sent", b"\\Trash", b"\\Junk", b"\\Archive"} <= special
            assert client.find_special_folder(b"\\Sent") == "Sent"

    await in_thread(work)


async def test_imapclient_moves_copies_and_idles(served: Served) -> None:
    await served.stack.deliver(served.reader, multipart(), multipart())

    def work() -> None:
        with served.imapclient() as client, served.imapclient() as watcher:
            client.select_folder("INBOX")
            watcher.select_folder("INBOX")
            watcher.idle()
            client.copy([1], "Archive")
            client.move([1], "Trash")
            found = watcher.idle_check(timeout=20)
            assert (1, b"EXPUNGE") in found
            watcher.idle_done()
            assert watcher.search() == [2]
            assert client.folder_status("Trash", ["MESSAGES"]) == {b"MESSAGES": 1}
            client.add_flags([2], [imapclient.DELETED])
            client.uid_expunge([2])
            assert client.search() == []

    await in_thread(work)


async def test_quota_is_checked_before_the_message_is_read(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader(quota=1000)
    async with imap_stack.serving() as server:
        served = Served(imap_stack, server, reader)

        def work() -> None:
            with served.imaplib() as client:
                answer, text = client.append("INBOX", "", "", b"Subject: x\r\n\r\n" + b"a" * 2000)
                assert answer == "NO" and text[0].startswith(b"[OVERQUOTA]")
                assert client.append("INBOX", "", "", b"Subject: x\r\n\r\nfits\r\n")[0] == "OK"
                client.select()
                answer, text = client.append("INBOX", "", "", b"Subject: x\r\n\r\n" + b"a" * 990)
                assert answer == "NO" and text[0].startswith(b"[OVERQUOTA]")
                assert client.copy("1", "Archive")[0] == "OK"

        await in_thread(work)
    assert (await imap_stack.mailstore.accounts.usage(reader.account_id)).messages == 2
