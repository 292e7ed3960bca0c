"""Every socket that listens in the process trees of the given process ids, read from /proc; none given: everybody's.

Run in a pod it prints them as JSON; the tests of a local platform import it. Only the standard library is used.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_TCP_LISTEN = "0A"  # include/net/tcp_states.h
_UNIX_LISTEN = "00010000"  # __SO_ACCEPTCON, include/uapi/linux/net.h


def listeners(pids: Iterable[int]) -> tuple[set[tuple[str, int]], set[str]]:
    """(address, port) of the TCP listeners and names of the UNIX ones. An abstract name begins with `@`."""
    inodes = {inode for pid in pids for inode in _sockets(pid)}
    tcp = {place for table in ("tcp", "tcp6") for place, inode in _tcp(table) if inode in inodes}
    return tcp, {name for name, inode in _unix() if inode in inodes}


def descendants(pid: int) -> Iterator[int]:
    """`pid`, its children, theirs, and so on. Children of every thread count."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            for child in task.joinpath("children").read_text().split():
                yield from descendants(int(child))


def everybody() -> Iterator[int]:
    return (int(process.name) for process in Path("/proc").glob("[0-9]*"))


def _sockets(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(descriptor.readlink())
                if target.startswith("socket:["):
                    yield target[len("socket:[") : -1]


def _tcp(table: str) -> Iterator[tuple[tuple[str, int], str]]:
    for line in Path("/proc/net", table).read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == _TCP_LISTEN:
            address, _, port = fields[1].partition(":")
            yield (_address(address), int(port, 16)), fields[9]


def _address(text: str) -> str:
    """The kernel prints each 32 bits of the address as a number of the machine."""
    words = [bytes.fromhex(text[at : at + 8]) for at in range(0, len(text), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _unix() -> Iterator[tuple[str, str]]:
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if fields[3] == _UNIX_LISTEN:
            yield fields[7] if len(fields) > 7 else "", fields[6]


if __name__ == "__main__":
    chosen = [pid for word in sys.argv[1:] for pid in descendants(int(word))]
    tcp_found, unix_found = listeners(chosen or everybody())
    print(json.dumps({"tcp": sorted(tcp_found), "unix": sorted(unix_found)}))
