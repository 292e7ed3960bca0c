"""The ports, the data directory and the secrets of a local platform."""

import fcntl
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from paquebot.cli.engines.engine import EngineError
from paquebot.cli.engines.files import make_directory, write_durably
from paquebot.cli.engines.grants import NATS_USERS, S3_USERS
from paquebot.cli.engines.ports import DEFAULT_PORTS, LOOPBACK, EnginePorts, option_name
from paquebot.cli.engines.postgres import takes_socket
from paquebot.cli.up.certificate import authority_of
from paquebot.runtime.postgres.migrations import ROLES

SERVICES = ("recipient_validation", "smtp_ingress", "delivery", "relay", "imap", "pop3")
"""In the order of the printed table."""

_SOCKET_PATH = 107  # maximum bytes of a UNIX socket's path on Linux


class UpError(Exception):
    """The platform cannot run; the text is one sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class ServicePorts:
    """Every listener of the services. The field's name, with hyphens, is the name in `--port NAME=NUMBER`."""

    smtp: int = 2525
    submission: int = 2587
    submissions: int = 2465
    imap: int = 2143
    imaps: int = 2993
    pop3: int = 2110
    pop3s: int = 2995
    grpc: int = 0
    """0: no listener; services and the command line use the UNIX socket."""
    smtp_ingress_metrics: int = 2900
    recipient_validation_metrics: int = 2901
    delivery_metrics: int = 2902
    relay_metrics: int = 2903
    imap_metrics: int = 2904
    pop3_metrics: int = 2905

    def metrics(self, service: str) -> int:
        number: int = getattr(self, f"{service}_metrics")
        return number


@dataclass(frozen=True, slots=True)
class Ports:
    """All ports of one local platform."""

    services: ServicePorts = field(default_factory=ServicePorts)
    engines: EnginePorts = DEFAULT_PORTS

    @staticmethod
    def names() -> list[str]:
        """Every NAME of `--port NAME=NUMBER`."""
        return [option_name(item.name) for kind in (ServicePorts, EnginePorts) for item in fields(kind)]

    def moved(self, numbers: Mapping[str, int]) -> "Ports":
        """A copy with some ports changed; keys as in `--port`. Raises UpError."""
        known = {option_name(item.name): item.name for item in fields(ServicePorts)}
        rest = {name: number for name, number in numbers.items() if name not in known}
        changed = {known[name]: number for name, number in numbers.items() if name in known}
        for name, number in numbers.items():
            if not 0 < number < 65536:
                raise UpError(f"--port {name}={number}: the port must be between 1 and 65535")
        try:
            return Ports(replace(self.services, **changed), self.engines.moved(rest))
        except ValueError as error:
            raise UpError(f"{error}, {', '.join(known)}") from None

    def claims(self) -> list[tuple[str, int, str]]:
        """(owner, port, option) of each service listener."""
        return [
            (f"the listener {option_name(name)}", number, f"--port {option_name(name)}=NUMBER")
            for name, number in asdict(self.services).items()
            if number
        ]


@dataclass(frozen=True, slots=True)
class Secrets:
    """Generated once for a data directory, never printed. `nats` and `s3` are the operator's, with all rights."""

    nats: str
    s3: str
    nats_users: Mapping[str, str]
    s3_users: Mapping[str, str]
    postgres: str
    admin_token: str
    roles: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one local platform."""

    data: Path

    @property
    def logs(self) -> Path:
        return self.data / "log"

    @property
    def certificate(self) -> Path:
        return self.data / "tls" / "tls.crt"

    @property
    def key(self) -> Path:
        return self.data / "tls" / "tls.key"

    @property
    def authority(self) -> Path:
        """The certificate of the authority, which the user trusts once."""
        return authority_of(self.certificate)

    @property
    def client_env(self) -> Path:
        """The settings with which the command line reaches this platform."""
        return self.data / "client.env"

    @property
    def socket(self) -> Path:
        """The socket of gRPC. It is in a shorter directory when the data directory's path is too long for a socket."""
        path = self.data / "run" / "grpc.sock"
        return path if len(os.fsencode(path)) <= _SOCKET_PATH else _short_directory(self.data) / "grpc.sock"

    def prepare_socket(self) -> None:
        """Make the socket's directory, whose mode keeps other users away. Raises UpError."""
        directory = self.socket.parent
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            found = directory.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise UpError(f"{directory} belongs to another user: remove it, or give a shorter path with --data")
            directory.chmod(0o700)
            self.socket.unlink(missing_ok=True)  # left by a service that was killed
        except OSError as error:
            raise UpError(f"cannot make {directory} for the socket of gRPC: {error.strerror}") from None
        if not takes_socket(self.socket):
            raise UpError(f"cannot create a UNIX socket in {directory}: give another directory with --data")

    def lock(self) -> int:
        """Lock the data directory for this process, until the returned descriptor is closed. Raises UpError."""
        try:
            make_directory(self.data)
        except EngineError as error:
            raise UpError(str(error)) from None
        path = self.data / "lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UpError(f"cannot open {path}: {error.strerror}; give another directory with --data") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            text = f"another `paquebot up` runs on {self.data}: stop it first, or give another directory with --data"
            raise UpError(text) from None
        return descriptor

    def secrets(self) -> Secrets:
        """Read the secrets; generate those that are missing. Raises UpError."""
        path = self.data / "secrets.json"
        known = _known_secrets(path) if path.exists() else {}
        logins = (*(f"nats.{user}" for user in NATS_USERS), *(f"s3.{user}" for user in S3_USERS))
        names = ("nats", "s3", "postgres", "admin_token", *ROLES, *logins)
        values = {name: known.get(name) or secrets.token_urlsafe(24) for name in names}
        write_durably(path, json.dumps(values, indent=1))
        return Secrets(
            nats=values["nats"],
            s3=values["s3"],
            nats_users={user: values[f"nats.{user}"] for user in NATS_USERS},
            s3_users={user: values[f"s3.{user}"] for user in S3_USERS},
            postgres=values["postgres"],
            admin_token=values["admin_token"],
            roles={role: values[role] for role in ROLES},
        )


def _short_directory(data: Path) -> Path:
    """A directory for this data directory alone, in the user's runtime directory, or in /tmp."""
    own = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    home = own if own.is_absolute() and os.access(own, os.W_OK) else Path("/tmp")  # noqa: S108 - checked when it is made
    mark = hashlib.sha256(os.fsencode(data.absolute())).hexdigest()[:12]
    return home / f"paquebot-{os.geteuid()}-{mark}"


def _known_secrets(path: Path) -> dict[str, str]:
    """Raises UpError."""
    try:
        known = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UpError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        known = None
    if not isinstance(known, dict) or not all(isinstance(value, str) for value in known.values()):
        text = f"{path} is damaged: restore it from a backup, or move {path.parent} away to start from scratch"
        raise UpError(text)
    return known


def listen(port: int) -> str:
    return f"{LOOPBACK}:{port}"
