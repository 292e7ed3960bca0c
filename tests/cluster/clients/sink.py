"""The mail server of another domain, outside the cluster: it takes all mail and writes down each message's X-Attempt.

Run as a program until SIGTERM. Each line of its log is a message that it answered with 250: {"attempt", "peer"}.
"""

from __future__ import annotations

import argparse
import email
import email.policy
import json
import signal
import time
from typing import TextIO

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope, Session


class Book:
    """aiosmtpd's handler."""

    def __init__(self, log: TextIO) -> None:
        self.log = log

    async def handle_DATA(self, _: object, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        message = email.message_from_bytes(envelope.original_content or b"", policy=email.policy.default)
        row = {"attempt": message["X-Attempt"], "peer": session.peer[0] if session.peer else "", "at": time.time()}
        self.log.write(json.dumps(row) + "\n")
        self.log.flush()
        return "250 2.0.0 Kept"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("--port", type=int, default=25)
    parser.add_argument("--log", required=True)
    arguments = parser.parse_args()
    with open(arguments.log, "a", encoding="utf-8") as log:
        controller = Controller(
            Book(log), hostname=arguments.address, port=arguments.port, server_hostname="mx.elsewhere.test"
        )
        controller.start()
        signal.sigwait({signal.SIGTERM})
        controller.stop()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
