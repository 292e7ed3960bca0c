"""The accounts of the mixed load: what they hold before it, and what they must hold after it."""

from __future__ import annotations

from tests.bench import imap_mail
from tests.bench.imap_client import Answer, ImapClient, Login, log_in
from tests.bench.imap_model import MailboxModel
from tests.bench.imap_response import Fetched, values
from tests.bench.imap_view import View

MAILBOXES: tuple[bytes, ...] = (b"Archive", b"INBOX", b"Sent")
"""What every account has; `prepare` makes what is missing."""


async def prepare(login: Login, model: MailboxModel) -> None:
    """An account with exactly `MAILBOXES` and an empty INBOX. Raises ServerFault."""
    client = await log_in(login)
    try:
        answer = await client.ask(b'LIST "" "*"')
        there = {values(one, 7)[-1] for one in answer.untagged if one.text.startswith(b"* LIST ")}
        for name in there - set(MAILBOXES):
            await client.ask(b'DELETE "%s"' % name)
        for name in set(MAILBOXES) - there:
            await client.ask(b'CREATE "%s"' % name)
        model.uid_validity = await empty_inbox(client)
        await client.ask(b"LOGOUT")
    finally:
        client.close()


async def empty_inbox(client: ImapClient) -> int:
    """Leaves it selected; its UIDVALIDITY. Raises ServerFault."""
    answer = await client.ask(b"SELECT INBOX")
    if any(answer.numbers(b"EXISTS")):
        await client.ask(b"STORE 1:* +FLAGS.SILENT (\\Deleted)")
        await client.ask(b"EXPUNGE")
    return number(answer, b"UIDVALIDITY")


async def final_state(login: Login, model: MailboxModel) -> list[str]:
    """When all clients have ended: everything in the mailbox against the model; what is wrong. Raises ServerFault."""
    wrong: list[str] = []
    strangers: list[int] = []
    client = await log_in(login)
    try:
        view = View()
        view.apply(b"SELECT", await client.ask(b"EXAMINE INBOX"))
        shown: list[Fetched] = []
        if view.uids:
            shown = view.apply(b"FETCH", await client.ask(b"FETCH 1:* (UID FLAGS BODY.PEEK[])"))
        view.check_order()
        wrong += view.taken()
        left = {message.uid: message for message in model.certain(model.now())}
        for one in shown:
            message = left.pop(one.uid, None)
            if message is None:
                strangers.append(one.uid)
            elif one.flags != message.flags or not imap_mail.same(one.value(b"BODY[]") or b""):
                wrong.append(f"UID {one.uid} is not as its client left it")
        wrong += [f"UID {uid} is not there" for uid in left]
        if len(strangers) > model.undecided():
            wrong.append(f"UIDs {strangers} should not be there")
        await client.ask(b"LOGOUT")
    finally:
        client.close()
    return wrong


def number(answer: Answer, code: bytes) -> int:
    """The number of a response code such as UIDVALIDITY; 0: not sent."""
    found = answer.code(code)
    return int(found[0]) if found else 0
