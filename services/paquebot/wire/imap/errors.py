"""The only errors that parsing IMAP raises."""

from __future__ import annotations


class BadSyntax(Exception):
    """A command that does not follow the grammar. The service answers `tag BAD message`, or `* BAD` without a tag.

    `message` is safe for the wire: fixed text, never the client's octets. `position` counts octets of the
    command's text; a literal counts as its `{n}` and CRLF.
    """

    def __init__(self, tag: bytes | None, message: str, position: int) -> None:
        super().__init__(f"{message} at octet {position}")
        self.tag = tag
        self.message = message
        self.position = position


class BadMailboxEncoding(BadSyntax):
    """A command whose mailbox name is not well encoded. The service answers `tag NO [CANNOT]` (RFC 5530 §3).

    Some clients send names as a person typed them, in UTF-8; after a BAD they give up the session, after a NO only
    the mailbox.
    """


class MailboxNameError(ValueError):
    """A mailbox name that is not well encoded, or that a mailbox may not have; the text is safe for the wire."""
