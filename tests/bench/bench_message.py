"""How long the summary of a typical 4 KiB message takes, against the standard library's parser in the same run.

Run: python -m tests.bench.bench_message [rounds]
"""

import sys
import time
from collections.abc import Callable
from email.parser import BytesParser
from email.policy import compat32
from email.utils import getaddresses

from paquebot.message import summarise

_HEADER = """\
Received: from mx1.example.net (mx1.example.net [192.0.2.10])
\tby mx.paquebot.test (Paquebot) with ESMTPS id 01JDCQ7M3R2Y3Z8T4F9V0K6W5X
\tfor <bob@paquebot.test>; Mon, 23 Nov 2026 09:21:07 +0000
Received: from smtp.example.org (smtp.example.org [198.51.100.7])
\tby mx1.example.net with ESMTPSA id h9-20020a5d4fc9000000b003;
\tMon, 23 Nov 2026 01:21:05 -0800 (PST)
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=20230601; t=1732353665;
\th=cc:to:subject:message-id:date:from:mime-version:from:to:cc:subject:date:message-id:reply-to;
\tbh=frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=;
\tb=WY9c3oV8f5eO3t0e5n8K0zG8b1lqXv7hQk4kWm2x6uN3r1sJ5tZ9yB7dC4fH2gL6pR8aQ0wE1iT3yU5oP7sD9
\tfG2hJ4kL6zX8cV0bN1mQ3wE5rT7yU9iO1pA3sD5fG7hJ9kL1zX3cV5bN7mQ9wE1rT3yU5iO7pA9sD1fG3hJ5kL7
Authentication-Results: mx.paquebot.test; dkim=pass header.d=example.org header.s=20230601;
\tspf=pass smtp.mailfrom=alice@example.org
MIME-Version: 1.0
References: <CAK9a1@mail.example.org> <6f1d22c7-1b2c@paquebot.test> <CAK9a2@mail.example.org>
In-Reply-To: <6f1d22c7-1b2c@paquebot.test>
From: =?UTF-8?Q?Alice_M=C3=BCller?= <alice@example.org>
Date: Mon, 23 Nov 2026 10:20:54 +0100
Message-ID: <CAK9a3@mail.example.org>
Subject: Re: The timetable of the packet boats, and what we found in the
 archive of the harbour
To: "Bob, of the Archive" <bob@paquebot.test>
Cc: Carol <carol@example.com>, dave@example.com, "Erin E." <erin@example.net>
List-Unsubscribe: <https://example.org/u/1234567890>, <mailto:leave@example.org>
X-Mailer: Example Mail 12.3
Content-Type: multipart/alternative; boundary="000000000000c4b5a30627a1b2c3"

"""
_BODY = """\
--000000000000c4b5a30627a1b2c3
Content-Type: text/plain; charset="UTF-8"
Content-Transfer-Encoding: quoted-printable

{plain}
--000000000000c4b5a30627a1b2c3
Content-Type: text/html; charset="UTF-8"
Content-Transfer-Encoding: quoted-printable

{html}
--000000000000c4b5a30627a1b2c3--
"""
_PLAIN = "The boats left at nine on Mondays, as the harbour master wrote in his book.\n" * 13
_HTML = "<p>The boats left at nine on Mondays, as the harbour master wrote.</p>\n" * 16


def typical_message() -> bytes:
    """4 KiB as a common client and two servers make them, with CRLF."""
    text = _HEADER + _BODY.format(plain=_PLAIN, html=_HTML)
    return text.replace("\n", "\r\n").encode("ascii")


def _same_facts(parser: BytesParser, raw: bytes) -> list[object]:
    """What a summary holds, as the standard library gives it; it knows no offsets."""
    message = parser.parsebytes(raw)
    facts: list[object] = [message[name] for name in ("date", "subject", "in-reply-to", "message-id", "references")]
    facts += [getaddresses(message.get_all(name, [])) for name in ("from", "sender", "reply-to", "to", "cc", "bcc")]
    for part in message.walk():
        facts += [part.get_content_type(), part.get_params(), part["content-id"], part.get_content_disposition()]
        facts.append(part.get("content-transfer-encoding"))
    return facts


def _microseconds(work: Callable[[], object], rounds: int) -> float:
    """CPU time of one call, in the best of twenty short runs: what the machine's other work disturbs least."""
    best = float("inf")
    for _ in range(20):
        start = time.process_time()
        for _ in range(rounds):
            work()
        best = min(best, time.process_time() - start)
    return best / rounds * 1e6


def main() -> None:
    """Print both times, their ratio, and the size of the summary."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    raw = typical_message()
    parser = BytesParser(policy=compat32)
    ours = _microseconds(lambda: summarise(raw), rounds)
    kept = summarise(raw).SerializeToString()
    serialised = _microseconds(lambda: summarise(raw).SerializeToString(), rounds)
    alike = _microseconds(lambda: _same_facts(parser, raw), max(1, rounds // 10))
    theirs = _microseconds(lambda: parser.parsebytes(raw), max(1, rounds // 10))
    print(f"message                 {len(raw):8} bytes, summary {len(kept)} bytes")
    print(f"summarise               {ours:8.1f} µs")
    print(f"summarise + serialise   {serialised:8.1f} µs")
    print(f"email.BytesParser       {theirs:8.1f} µs (split only: no address, parameter or offset is read)")
    print(f"  with the same facts   {alike:8.1f} µs (addresses, parameters and identifiers read; offsets unknown)")
    print(f"ratio                   {theirs / ours:8.1f}, with the same facts {alike / ours:.1f}")


if __name__ == "__main__":
    main()
