"""The entry point of the script `paquebot`.

It runs a service without importing the command line's own modules, which would take a quarter of its memory
(docs/performance.md). Everything else is in `cli.app`.
"""

import os
import signal
import sys
from typing import NoReturn

from paquebot.cli.services import by_command, run_service


def main() -> None:
    """Run the command that the arguments name."""
    if os.getpid() == 1:
        # The kernel drops signals to the first process of a container unless it has a handler. Services set their own.
        signal.signal(signal.SIGTERM, _exit)
    # By default gRPC prints a line, which is not a log entry, for each failed handshake of any client.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    service = by_command(sys.argv[1:])
    if service is not None:
        sys.exit(run_service(service))
    if not all(map(_is_text, sys.argv[1:])):
        sys.exit("paquebot: an argument is not UTF-8")
    from paquebot.cli.app import app  # imported here, so that a service does not load it

    app()


def _is_text(argument: str) -> bool:
    """False: it has bytes that are not UTF-8, which Python keeps as lone surrogates (PEP 383)."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _exit(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)
