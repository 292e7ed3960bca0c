"""TLS for listeners, reloaded when the certificate file changes, so that a renewal needs no restart.

A changed pair is tried in a context of its own and serves new handshakes only when it is whole: a bad one is
reported once, and the last good one goes on.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from cryptography import x509

from paquebot.observability.log import Log
from paquebot.observability.metrics import Across, Bounded, counter, gauge
from paquebot.runtime.engine_settings import TlsSettings
from paquebot.runtime.settings import SettingsError

T = TypeVar("T")

_log = Log("paquebot.tls")
_LOOK_SECONDS = 10.0

RELOADS = counter(
    "paquebot_tls_reloads_total",
    "Changed certificates that were loaded; failed: it cannot be used, the last good one stays",
    {"result": ("ok", "failed")},
)
NOT_AFTER = gauge(
    "paquebot_tls_certificate_not_after_timestamp_seconds",
    "Unix time at which the certificate in use expires; absent without TLS",
    {"certificate": Bounded("PAQUEBOT_TLS_CERTIFICATE and PAQUEBOT_GRPC_TLS_CERTIFICATE, one file each a process")},
    across=Across.MIN,
)

_Stamp = tuple[tuple[int, int, int], ...]


class Reloaded(Generic[T]):
    """What `make` returns for PEM files, made again when they change. `files` begins with the certificate; `make`
    raises OSError or ValueError when the files cannot be used.

    Raises the same at the start; later a bad change is reported once, and `current` stays the last good one.
    """

    def __init__(self, files: Sequence[Path], make: Callable[[], T]) -> None:
        self._files = files
        self._make = make
        self._loaded = self._stamp()
        self._refused: _Stamp | None = None
        self.current = self._load()

    def _stamp(self) -> _Stamp:
        return tuple(_stat(path) for path in self._files)

    def _load(self) -> T:
        made = self._make()
        NOT_AFTER.labels(str(self._files[0])).set(_not_after(self._files[0]))
        return made

    def look_again(self) -> bool:
        """Load the files when they changed. True: loaded."""
        stamp = self._stamp()  # before the files are read: a later write is seen the next time
        if stamp == self._loaded:
            return False
        path = str(self._files[0])
        try:
            current = self._load()
        except (OSError, ValueError) as error:
            if stamp != self._refused:
                self._refused = stamp
                RELOADS.labels("failed").inc()
                _log.warning("certificate_not_loaded", path=path, reason=reason(error))
            return False
        self.current, self._loaded, self._refused = current, stamp, None
        RELOADS.labels("ok").inc()
        _log.info("certificate_loaded", path=path)
        return True


class ServerTls:
    """The server's SSL context. The one in `context` lives as long as the process; each of its handshakes is
    handed to the context of the last good pair. Old connections go on.

    Raises SettingsError when the files cannot be used at the start.
    """

    def __init__(self, settings: TlsSettings) -> None:
        assert settings.certificate is not None and settings.key is not None
        self._certificate: Path = settings.certificate
        self._key: Path = settings.key
        try:
            self._pair = Reloaded((self._certificate, self._key), self._try)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise SettingsError(
                [
                    f"PAQUEBOT_TLS_CERTIFICATE={self._certificate} and PAQUEBOT_TLS_KEY={self._key}"
                    f" cannot be used: {reason(error)}"
                ]
            ) from error
        self.context = self._pair.current
        # Called in every handshake, also where the client sends no name (RFC 6066 §3).
        self.context.sni_callback = self._hand_over

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._pair.current

    def _try(self) -> ssl.SSLContext:
        """A context with the pair as it is now. Raises OSError, ValueError."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
        # Without a callback OpenSSL would ask for an encrypted key's password on the terminal.
        context.load_cert_chain(self._certificate, self._key, password=lambda: "")
        return context

    def look_again(self) -> bool:
        """Load the files when they changed; a bad pair is reported and the old one kept. True: loaded."""
        return self._pair.look_again()

    async def watch(self) -> None:
        """Check the files from time to time, without end."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.look_again()


def _stat(path: Path) -> tuple[int, int, int]:
    """Values that change with the file. In Kubernetes the files are links that are replaced; stat follows them."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0  # reading the file gives the reason
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def reason(error: OSError | ValueError) -> str:
    """Why files cannot be used, for the operator."""
    if isinstance(error, ssl.SSLError):
        return f"no certificate with its key, unencrypted, in PEM ({error.reason or error})"
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def _not_after(path: Path) -> float:
    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()
