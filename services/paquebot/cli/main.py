"""The entry point of the script `paquebot`.

A service that is to run is run from here, without the command line's own modules: a quarter of its memory would be
theirs (docs/performance.md). Everything else is `cli.app`.
"""

import os
import signal
import sys
from typing import NoReturn

from paquebot.cli.services import by_command, run_service


def main() -> None:
    """Run what the arguments say."""
    if os.getpid() == 1:
        # The first process of a container gets no signal that it does not ask for. Services ask by themselves, later.
        signal.signal(signal.SIGTERM, _end)
    # At its own choice gRPC writes a line, which is no log entry, for each handshake of whoever connects.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    service = by_command(sys.argv[1:])
    if service is not None:
        sys.exit(run_service(service))
    if not all(map(_is_text, sys.argv[1:])):
        sys.exit("paquebot: an argument is not UTF-8")
    from paquebot.cli.app import app  # here, so that a service has none of it

    app()


def _is_text(argument: str) -> bool:
    """False: it has bytes of another character set, which Python keeps as halves of characters (PEP 383)."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _end(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)
