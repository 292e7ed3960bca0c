"""Numbered mail, in and out: what was accepted, when, and where it is now."""

from __future__ import annotations

import collections
import re
import time
from dataclasses import dataclass, field

from tests.e2e.platforms import Platform, closed_on_failure

READER, SENDER = "bob", "alice"
FOLDER = "Projects/Drill"
KEYWORD = "$Drilled"
FILED = 3
"""Messages that the reader moves into FOLDER, flagged."""


@dataclass(slots=True)
class Post:
    """Sends numbered messages to one reader and remembers what was answered with 250."""

    accepted: dict[str, float] = field(default_factory=dict)
    """Subject to the time of its 250."""

    def send(self, platform: Platform, mark: str, count: int) -> list[str]:
        names = [f"{mark}-{number}" for number in range(count)]
        with platform.submission(SENDER) as client:
            for name in names:
                text = f"From: {platform.address(SENDER)}\r\nSubject: {name}\r\n\r\n{name}\r\n"
                client.sendmail(platform.address(SENDER), [platform.address(READER)], text.encode())
                self.accepted[name] = time.time()
        return names


def found(platform: Platform) -> collections.Counter[str]:
    """How often each subject is in all mailboxes of the reader."""
    counts: collections.Counter[str] = collections.Counter()
    for mailbox in mailboxes(platform):
        counts.update(platform.subjects(READER, mailbox))
    return counts


def mailboxes(platform: Platform) -> list[str]:
    client = platform.imap(READER)
    with closed_on_failure(client.shutdown):
        _, lines = client.list()
        client.logout()
    names = [line.decode().rpartition(' "/" ')[2].strip('"') for line in lines if isinstance(line, bytes)]
    return [name for name in names if name != "Projects"]


def file_some(platform: Platform) -> None:
    """The reader files messages into a nested mailbox, with a flag and a keyword, and keeps a draft."""
    client = platform.imap(READER)
    with closed_on_failure(client.shutdown):
        client.create(FOLDER)
        client.select("INBOX")
        client.uid("STORE", f"1:{FILED}", "+FLAGS", rf"(\Flagged {KEYWORD})")
        client.uid("MOVE", f"1:{FILED}", FOLDER)
        client.append("Drafts", r"(\Draft \Seen)", "", b"Subject: draft\r\n\r\nnot yet\r\n")
        client.logout()


def state(platform: Platform, mailbox: str) -> tuple[str, list[str]]:
    """UIDVALIDITY, and a line of UID and flags for each message."""
    client = platform.imap(READER)
    with closed_on_failure(client.shutdown):
        client.select(mailbox, readonly=True)
        validity = client.response("UIDVALIDITY")[1][0]
        _, lines = client.uid("FETCH", "1:*", "(FLAGS)")
        client.logout()
    assert validity is not None
    # Recent belongs to sessions, not to the mailbox (RFC 3501 §2.3.2).
    return validity.decode(), sorted(
        re.sub(r" ?\\Recent", "", line.decode()) for line in lines if isinstance(line, bytes)
    )
