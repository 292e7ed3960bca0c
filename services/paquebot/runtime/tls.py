"""TLS for listeners, reloaded when the certificate file changes, so that a renewal needs no restart."""

import asyncio
import ssl
from pathlib import Path

from cryptography import x509
from prometheus_client import Counter, Gauge

from paquebot.observability.log import Log
from paquebot.runtime.engines import TlsSettings

_log = Log("paquebot.tls")
_LOOK_SECONDS = 10.0

RELOADS = Counter("paquebot_tls_reloads_total", "Times a changed certificate was loaded", ["result"])
NOT_AFTER = Gauge("paquebot_tls_certificate_not_after_seconds", "Unix time at which the certificate expires")


class ServerTls:
    """The server's SSL context. One context object lives as long as the process: loading a new chain into it
    serves new handshakes with the new certificate while old connections go on."""

    def __init__(self, settings: TlsSettings) -> None:
        assert settings.certificate is not None and settings.key is not None
        self._certificate: Path = settings.certificate
        self._key: Path = settings.key
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
        self._seen: tuple[float, ...] = ()
        self._load()

    def _stamp(self) -> tuple[float, ...]:
        # In Kubernetes the files are links that are swapped; stat follows them.
        return tuple(value for path in (self._certificate, self._key) for value in _stat(path))

    def _load(self) -> None:
        stamp = self._stamp()
        self.context.load_cert_chain(self._certificate, self._key)
        self._seen = stamp
        NOT_AFTER.set(_not_after(self._certificate))

    def look_again(self) -> bool:
        """Load the files when they changed; a bad pair is reported and the old one kept. True: loaded."""
        try:
            if self._stamp() == self._seen:
                return False
            self._load()
        except (OSError, ssl.SSLError) as error:
            RELOADS.labels("failed").inc()
            _log.warning("certificate_not_loaded", reason=str(error))
            return False
        RELOADS.labels("ok").inc()
        _log.info("certificate_loaded", path=str(self._certificate))
        return True

    async def watch(self) -> None:
        """Look at the files for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.look_again()


def _stat(path: Path) -> tuple[float, float]:
    stat = path.stat()
    return stat.st_mtime, float(stat.st_ino)


def _not_after(path: Path) -> float:
    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()
