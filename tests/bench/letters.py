"""The messages of the load: text that compression cannot shrink much, another one for each mailbox."""

from __future__ import annotations

import random
from pathlib import Path

_LINE = 76  # bytes
_PRINTABLE = [code for code in range(33, 127) if chr(code) != "."]
_LETTERS = bytes(_PRINTABLE[octet % len(_PRINTABLE)] for octet in range(256))
_HEADER = """\
From: Sender <sender@example.org>
To: {address}
Subject: {subject}
Date: Mon, 23 Nov 2026 10:20:54 +0100
Message-ID: <{identity}@example.org>
MIME-Version: 1.0
Content-Type: text/plain; charset=us-ascii

"""


def letter(address: str, subject: str, size: int, seed: int) -> str:
    """A whole message of `bytes` as sent with CRLF, lines ended by LF. Its body is random printable ASCII (6.4 bits
    of information a byte), the same for the same seed."""
    source = random.Random(seed)
    header = _HEADER.format(address=address, subject=subject, identity=f"{seed:x}.{size:x}")
    left = max(0, size - len(header) - header.count("\n"))
    text = source.randbytes(left).translate(_LETTERS).decode("ascii")
    lines = []
    while left > 2:
        width = min(_LINE, left - 2)
        lines.append(text[left - width : left] + "\n")
        left -= width + 2
    return header + "".join(lines)


def letter_files(directory: Path, domain: str, accounts: int, size: int) -> list[Path]:
    """One file for each account, for `smtp-source -F`."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(accounts):
        path = directory / f"{size}-{number:03}.eml"
        path.write_text(letter(f"user{number:03}@{domain}", f"Letter to {number}", size, number))
        paths.append(path)
    return paths
