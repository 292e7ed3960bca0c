"""The settings of each service of a local platform, with its own credentials only."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from paquebot.cli.engines.grants import nats_access, s3_access
from paquebot.cli.engines.nats import NatsAccess, NatsEngine
from paquebot.cli.engines.postgres import PostgresEngine
from paquebot.cli.engines.s3 import S3Access, S3Engine
from paquebot.cli.up.certificate import is_user_supplied
from paquebot.cli.up.layout import Layout, Ports, Secrets, listen

DATABASE = "paquebot"
BUCKET = "paquebot"
LOGIN = "paquebot"
"""The operator's login, which has all rights."""
_DRAIN = "10s"
_DEMO_PASSWORDS = {"PAQUEBOT_PASSWORD_MIN_LENGTH": "8"}
"""The demo accounts have a well-known, short password; only programs on this machine can reach them."""
_MANY_CLIENTS = ("smtp_ingress", "imap")


@dataclass(frozen=True, slots=True)
class PlatformPlan:
    """The configuration of one local platform."""

    layout: Layout
    ports: Ports
    secrets: Secrets
    hostname: str
    domain: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    """The user's PAQUEBOT_* settings, passed on to every service."""

    @property
    def certificate(self) -> Path:
        """The servers' certificate with its issuers: from the user's settings, or in the data directory."""
        # Relative to the data directory, in which the services run.
        return self.layout.data / (self.overrides.get("PAQUEBOT_TLS_CERTIFICATE") or self.layout.certificate)

    @property
    def authority(self) -> Path | None:
        """The authority that clients must trust; None: the user supplied the certificate."""
        own = self.certificate == self.layout.certificate and not is_user_supplied(self.certificate)
        return self.layout.authority if own else None

    @property
    def nats(self) -> NatsEngine:
        logins = (nats_access(user, password) for user, password in self.secrets.nats_users.items())
        accesses = (NatsAccess(LOGIN, self.secrets.nats), *logins)
        return NatsEngine(self.layout.data / "nats", accesses, self.ports.engines)

    @property
    def s3(self) -> S3Engine:
        keys = self.secrets.s3_users.items()
        identities = (s3_access(user, _access_key(user), secret_key, BUCKET) for user, secret_key in keys)
        accesses = (S3Access(LOGIN, LOGIN, self.secrets.s3), *identities)
        return S3Engine(self.layout.data / "s3", accesses, BUCKET, self.ports.engines)

    @property
    def postgres(self) -> PostgresEngine:
        return PostgresEngine(self.layout.data / "postgres", self.secrets.postgres, self.ports.engines)

    def role_dsn(self, role: str) -> str:
        """The DSN of a service's role; PostgreSQL must be running."""
        return self.postgres.socket_dsn(role, self.secrets.roles[role], DATABASE)

    def service_environment(self, service: str) -> dict[str, str]:
        """The complete environment of a service process."""
        ports = self.ports.services
        own = {
            "PAQUEBOT_HOSTNAME": self.hostname,
            "PAQUEBOT_DRAIN": _DRAIN,
            **self._directory(),
            **self._parts(service),
            **_workers(service),
            **self.overrides,
            **_fixed(service),
            "PAQUEBOT_METRICS_LISTEN": listen(ports.metrics(service)),
        }
        return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", **own}

    def client_environment(self) -> dict[str, str]:
        """The settings of the command line, with the operator's login."""
        return {
            **self._directory(),
            **self._admin(),
            **self._nats(LOGIN, self.secrets.nats),
            **self._s3(LOGIN, self.secrets.s3),
            "PAQUEBOT_POSTGRES_DSN": self.postgres.dsn(DATABASE),
            "PAQUEBOT_HOSTNAME": self.hostname,
        }

    def _parts(self, service: str) -> dict[str, str]:
        ports = self.ports.services
        match service:
            case "smtp_ingress":
                own = {
                    "PAQUEBOT_SMTP_MX_LISTEN": listen(ports.smtp),
                    "PAQUEBOT_SMTP_SUBMISSION_LISTEN": listen(ports.submission),
                    "PAQUEBOT_SMTP_SUBMISSIONS_LISTEN": listen(ports.submissions),
                }
                return {**own, **self._queue_and_packs(service), **self._tls()}
            case "recipient_validation":
                own = {"PAQUEBOT_GRPC_LISTEN": self._grpc, **_DEMO_PASSWORDS}
                if ports.grpc:
                    own["PAQUEBOT_GRPC_PLAIN_LISTEN"] = listen(ports.grpc)
                nats = self._nats(service, self.secrets.nats_users[service])
                return {**own, **self._admin(), **nats, **self._postgres(service)}
            case "imap":
                own = {
                    "PAQUEBOT_IMAP_LISTEN": listen(ports.imap),
                    "PAQUEBOT_IMAPS_LISTEN": listen(ports.imaps),
                }
                return {**own, **self._queue_and_packs(service), **self._tls(), **self._postgres(service)}
            case "pop3":
                own = {
                    "PAQUEBOT_POP3_LISTEN": listen(ports.pop3),
                    "PAQUEBOT_POP3S_LISTEN": listen(ports.pop3s),
                }
                return {**own, **self._queue_and_packs(service), **self._tls(), **self._postgres(service)}
            case "relay":
                return {**self._exchangers(), **self._queue_and_packs(service), **self._postgres(service)}
            case _:
                return {**self._queue_and_packs(service), **self._postgres(service)}

    def _exchangers(self) -> dict[str, str]:
        """Allow mail exchangers on loopback when the user's name servers are on loopback too, as in a trial. A server
        at port 53 does not count: it is the machine's resolver, which answers with public names."""
        servers = [server.strip() for server in self.overrides.get("PAQUEBOT_RELAY_DNS", "").split(",")]
        own = [server.startswith(("127.", "[::1]:")) and not server.endswith(":53") for server in servers]
        return {"PAQUEBOT_RELAY_ALLOW_NETWORKS": "127.0.0.0/8,::1/128"} if all(own) else {}

    def _directory(self) -> dict[str, str]:
        return {"PAQUEBOT_RECIPIENT_VALIDATION": self._grpc}

    @property
    def _grpc(self) -> str:
        return f"unix:{self.layout.socket}"

    def _admin(self) -> dict[str, str]:
        return {"PAQUEBOT_ADMIN_TOKEN": self.secrets.admin_token}

    def _queue_and_packs(self, service: str) -> dict[str, str]:
        """The service's own logins at NATS and S3, with the rights that `engines.grants` lists."""
        nats = self._nats(service, self.secrets.nats_users[service])
        return {**nats, **self._s3(_access_key(service), self.secrets.s3_users[service])}

    def _nats(self, user: str, password: str) -> dict[str, str]:
        return {
            "PAQUEBOT_NATS_URL": self.nats.url,
            "PAQUEBOT_NATS_USER": user,
            "PAQUEBOT_NATS_PASSWORD": password,
        }

    def _s3(self, access_key: str, secret_key: str) -> dict[str, str]:
        return {
            "PAQUEBOT_S3_ENDPOINT": f"http://{self.s3.endpoint}",
            "PAQUEBOT_S3_BUCKET": BUCKET,
            "PAQUEBOT_S3_ACCESS_KEY": access_key,
            "PAQUEBOT_S3_SECRET_KEY": secret_key,
        }

    def _tls(self) -> dict[str, str]:
        return {
            "PAQUEBOT_TLS_CERTIFICATE": str(self.layout.certificate),
            "PAQUEBOT_TLS_KEY": str(self.layout.key),
        }

    def _postgres(self, service: str) -> dict[str, str]:
        return {"PAQUEBOT_POSTGRES_DSN": self.role_dsn(f"paquebot_{service}")}


def _workers(service: str) -> dict[str, str]:
    """One worker for every two cores in services with many clients; engines and other services need the rest."""
    cores = len(os.sched_getaffinity(0))
    return {"PAQUEBOT_WORKERS": str(max(1, cores // 2))} if service in _MANY_CLIENTS else {}


def _fixed(service: str) -> dict[str, str]:
    """What the user cannot override: workers cannot share a UNIX socket."""
    return {"PAQUEBOT_WORKERS": "1"} if service == "recipient_validation" else {}


def _access_key(user: str) -> str:
    return f"{LOGIN}-{user}"
