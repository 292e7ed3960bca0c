"""The size of a message whose lines all end with CRLF, as RFC 5322 §2.1 asks and POP3 sends it (RFC 1939 §3)."""


def crlf_bytes(content: bytes) -> int:
    """The bytes of a message with CRLF for each lone LF, and after a last line without one; 0 for an empty message.

    A CR without LF is an ordinary byte.
    """
    lone = content.count(b"\n") - content.count(b"\r\n")
    return len(content) + lone + (2 if content and not content.endswith(b"\n") else 0)
