"""Settings that services share: the three engines, the directory service, TLS, the process."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from paquebot.runtime.settings import ByteSize, Listen, Seconds, Secret, setting

LOG_LEVELS = ("debug", "info", "warning", "error")
MAX_WORKERS = 128


@dataclass(frozen=True, slots=True)
class NatsSettings:
    url: tuple[str, ...] = setting("NATS_URL", ("nats://127.0.0.1:2422",), help="servers, separated by commas")
    user: str = setting("NATS_USER", "")
    password: Secret = setting("NATS_PASSWORD", Secret(""))
    credentials: Path | None = setting("NATS_CREDENTIALS", None, help="a .creds file, instead of user and password")
    ca: Path | None = setting("NATS_CA", None, help="CA certificates to trust, PEM")
    replicas: int = setting("NATS_REPLICAS", 1, help="copies of the stream in a cluster: 1, 3 or 5")
    stream: str = setting("NATS_STREAM", "MAIL")
    timeout: Seconds = setting("NATS_TIMEOUT", Seconds(5.0), help="timeout for an acknowledgement")
    ack_wait: Seconds = setting("NATS_ACK_WAIT", Seconds(30.0), help="a job not acknowledged then is handed out again")

    def __post_init__(self) -> None:
        if self.replicas not in (1, 3, 5):
            raise ValueError(f"PAQUEBOT_NATS_REPLICAS must be 1, 3 or 5, not {self.replicas}")


@dataclass(frozen=True, slots=True)
class S3Settings:
    endpoint: str = setting(
        "S3_ENDPOINT", "http://127.0.0.1:2333", help="http:// or https:// address of the S3 service"
    )
    bucket: str = setting("S3_BUCKET", "paquebot")
    region: str = setting("S3_REGION", "us-east-1")
    access_key: str = setting("S3_ACCESS_KEY", "")
    secret_key: Secret = setting("S3_SECRET_KEY", Secret(""))
    path_style: bool = setting("S3_PATH_STYLE", True, help="bucket in the path rather than in the host name")
    ca: Path | None = setting("S3_CA", None, help="CA certificates to trust, PEM")
    timeout: Seconds = setting("S3_TIMEOUT", Seconds(20.0), help="timeout for one request")
    threads: int = setting("S3_THREADS", 8, help="maximum requests under way at once in a process")


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    dsn: Secret = setting(
        "POSTGRES_DSN",
        Secret(""),
        help="postgresql://role@host:port/database; host1:port,host2:port: the one that writes",
    )
    password: Secret = setting("POSTGRES_PASSWORD", Secret(""), help="where the DSN has none")
    pool_size: int = setting("POSTGRES_POOL", 8, help="maximum connections of a process")
    timeout: Seconds = setting("POSTGRES_TIMEOUT", Seconds(10.0), help="timeout for one statement")


@dataclass(frozen=True, slots=True)
class GrpcTlsSettings:
    """Certificates of one authority, with which services authenticate each other."""

    certificate: Path | None = setting("GRPC_TLS_CERTIFICATE", None, help="this service's own, PEM; reloaded")
    key: Path | None = setting("GRPC_TLS_KEY", None, help="its PEM private key; reloaded")
    ca: Path | None = setting("GRPC_TLS_CA", None, help="authorities to trust, PEM, old and new ones; reloaded")
    domain: str = setting("GRPC_TLS_DOMAIN", "paquebot.internal", help="certificates are for imap.<domain>, and so on")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if len({self.certificate is None, self.key is None, self.ca is None}) > 1:
            raise ValueError(
                "PAQUEBOT_GRPC_TLS_CERTIFICATE, PAQUEBOT_GRPC_TLS_KEY and PAQUEBOT_GRPC_TLS_CA go together: one of them"
                " is not set"
            )

    @property
    def enabled(self) -> bool:
        return self.certificate is not None


@dataclass(frozen=True, slots=True)
class DirectoryClientSettings:
    target: str = setting(
        "RECIPIENT_VALIDATION", "127.0.0.1:2551", help="host:port of recipient_validation, or unix:/path of its socket"
    )
    timeout: Seconds = setting("RECIPIENT_VALIDATION_TIMEOUT", Seconds(5.0))
    tls: GrpcTlsSettings = field(default_factory=GrpcTlsSettings)


@dataclass(frozen=True, slots=True)
class TlsSettings:
    certificate: Path | None = setting("TLS_CERTIFICATE", None, help="PEM chain; reloaded when the file changes")
    key: Path | None = setting("TLS_KEY", None, help="PEM private key")

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("PAQUEBOT_TLS_CERTIFICATE and PAQUEBOT_TLS_KEY go together: one of them is not set")


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What every service has."""

    metrics_listen: tuple[Listen, ...] = setting(
        "METRICS_LISTEN", (Listen("127.0.0.1", 2900),), help="/metrics, /livez, /readyz"
    )
    log_level: str = setting("LOG_LEVEL", "info", help="debug, info, warning or error")
    log_addresses: bool = setting("LOG_ADDRESSES", False, help="mail addresses in logs; off: only their domains")
    drain: Seconds = setting("DRAIN", Seconds(25.0), help="timeout for the shutdown after SIGTERM")
    hostname: str = setting("HOSTNAME", "localhost", help="the name of this host in SMTP, Received and DSNs")
    in_flight: ByteSize = setting("IN_FLIGHT", ByteSize(256 * 2**20), help="maximum message bytes in memory at once")
    workers: int = setting("WORKERS", 1, help="processes that share the ports; limits are of each of them")
    trace_endpoint: str = setting(
        "TRACE_ENDPOINT", "", help="OTLP/gRPC collector, http:// or https://; empty: no traces"
    )
    trace_sample: float = setting("TRACE_SAMPLE", 0.01, help="the part of new traces that is recorded, 0 to 1")

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= MAX_WORKERS:
            raise ValueError(f"PAQUEBOT_WORKERS: {self.workers} is not between 1 and {MAX_WORKERS}")
        if self.trace_endpoint and not _is_http(self.trace_endpoint):
            raise ValueError(f"PAQUEBOT_TRACE_ENDPOINT: {self.trace_endpoint!r} is no http:// or https:// URL")
        if not 0 <= self.trace_sample <= 1:
            raise ValueError(f"PAQUEBOT_TRACE_SAMPLE: {self.trace_sample} is not between 0 and 1")
        if self.log_level.lower() not in LOG_LEVELS:
            raise ValueError(f"PAQUEBOT_LOG_LEVEL: {self.log_level!r} is none of {', '.join(LOG_LEVELS)}")


def _is_http(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname)
