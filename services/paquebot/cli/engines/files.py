"""Small files and directories of the engines and of `paquebot up`, written so that they survive a crash."""

from __future__ import annotations

import os
from pathlib import Path

from paquebot.cli.engines.engine import EngineError


def write_durably(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a small file so that a crash leaves the old or the new one, never a part. Does not write an equal one."""
    if read_if_there(path) == text:
        path.chmod(mode)
        return
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_directory(path.parent)


def read_if_there(path: Path) -> str | None:
    """The file's text; None: there is no such file."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def sync_directory(path: Path) -> None:
    """Make files that were created, renamed or removed in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Create a directory for its owner alone. Raises EngineError."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as fault:
        text = f"cannot create the data directory {path} ({fault.strerror}): give another with --data"
        raise EngineError(text) from fault
