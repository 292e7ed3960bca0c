"""The default ports of the local stack's engines, in one place.

They lie between 2300 and 2999, above the privileged ports and below the kernel's range for outgoing connections,
and beside the mail ports of the local stack (2110, 2143, 2465, 2525, 2587, 2993, 2995, 2551, 2900 and up).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

LOOPBACK = "127.0.0.1"


@dataclass(slots=True, frozen=True)
class EnginePorts:
    """Every listener of the three engines. The field's name, with hyphens, is the name in `--port NAME=NUMBER`."""

    nats: int = 2422
    nats_monitor: int = 2822
    s3: int = 2333
    s3_grpc: int = 2334
    s3_filer: int = 2335
    s3_filer_grpc: int = 2336
    s3_master: int = 2337
    s3_master_grpc: int = 2338
    s3_volume: int = 2339
    s3_volume_grpc: int = 2340
    postgres: int = 2543

    def moved(self, numbers: Mapping[str, int]) -> EnginePorts:
        """These ports with some changed. Keys as in `--port`. Raises ValueError for an unknown name or number."""
        known = {option_name(item.name): item.name for item in fields(self)}
        for name, number in numbers.items():
            if name not in known:
                raise ValueError(f"there is no port {name}; the ports are {', '.join(known)}")
            if not 0 < number < 65536:
                raise ValueError(f"{number} is not a port number")
        return replace(self, **{known[name]: number for name, number in numbers.items()})


DEFAULT_PORTS = EnginePorts()


def option_name(field_name: str) -> str:
    return field_name.replace("_", "-")


def option(field_name: str) -> str:
    """How a person moves this port."""
    return f"--port {option_name(field_name)}=NUMBER"
