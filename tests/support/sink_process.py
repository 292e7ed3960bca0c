"""`paquebot sink` as a process on a free port of loopback."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SinkProcess:
    process: subprocess.Popen[str]
    port: int


@contextlib.contextmanager
def sink_process(*options: object) -> Iterator[SinkProcess]:
    """Start it and wait until it listens; it is killed at the end of the block if it still runs."""
    command = [sys.executable, "-m", "paquebot", "sink", "--listen", "127.0.0.1:0", *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            first = process.stderr.readline()
            found = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+); Ctrl-C stops it\n", first)
            assert found, first
            yield SinkProcess(process, int(found[1]))
        finally:
            process.kill()
