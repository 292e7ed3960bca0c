"""What becomes of a message where each line ends with CRLF, as RFC 5322 §2.1 has it and POP3 sends it (RFC 1939 §3)."""


def crlf_bytes(raw: bytes) -> int:
    """The bytes of a message with CRLF for each lone LF, and behind a last line that has no end; of none: none.

    A CR without LF is an ordinary byte.
    """
    lone = raw.count(b"\n") - raw.count(b"\r\n")
    return len(raw) + lone + (2 if raw and not raw.endswith(b"\n") else 0)
