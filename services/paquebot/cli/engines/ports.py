"""The default ports of a local platform's engines.

They are between 2300 and 2999, above the privileged ports and below the kernel's range for outgoing connections,
and next to the mail ports of a local platform (2110, 2143, 2465, 2525, 2587, 2993, 2995, 2551, 2900 and up).
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
        """A copy with some ports changed; keys as in `--port`. Raises ValueError for an unknown name or number."""
        known = {option_name(item.name): item.name for item in fields(self)}
        for name, number in numbers.items():
            if name not in known:
                raise ValueError(f"there is no port {name}; the ports are {', '.join(known)}")
            if not 0 < number < 65536:
                raise ValueError(f"port {number} must be between 1 and 65535")
        return replace(self, **{known[name]: number for name, number in numbers.items()})


DEFAULT_PORTS = EnginePorts()


def option_name(field_name: str) -> str:
    return field_name.replace("_", "-")


def option(field_name: str) -> str:
    """The option that changes this port."""
    return f"--port {option_name(field_name)}=NUMBER"
