"""The certificates with which recipient_validation and its callers authenticate (mutual TLS).

Both sides read three files: their own certificate and key, and the authorities that they trust, of which there may be
several while one replaces another. The files are read again when they change, so that a renewal needs no restart: the
server checks them at each handshake, a client at most once a second while it calls. A connection keeps the certificates
of its handshake.
"""

import threading
from dataclasses import dataclass

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from paquebot.runtime.engine_settings import GrpcTlsSettings
from paquebot.runtime.net.tls import Reloaded, reason
from paquebot.runtime.settings import SettingsError


@dataclass(frozen=True, slots=True, repr=False)
class Pems:
    """Whole files in PEM; the key belongs to the certificate."""

    certificate: bytes
    key: bytes
    authorities: bytes

    def for_channel(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.authorities, self.key, self.certificate)

    def for_server(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], self.authorities)


def reloaded_pems(settings: GrpcTlsSettings) -> Reloaded[Pems]:
    """The files that the settings name; all three must be set. Raises SettingsError when they cannot be used."""
    certificate, key, authorities = settings.certificate, settings.key, settings.ca
    assert certificate is not None and key is not None and authorities is not None

    def read() -> Pems:
        pems = Pems(certificate.read_bytes(), key.read_bytes(), authorities.read_bytes())
        _check(pems)
        return pems

    try:
        return Reloaded((certificate, key, authorities), read)
    except (OSError, ValueError) as error:
        raise SettingsError(
            [
                f"PAQUEBOT_GRPC_TLS_CERTIFICATE={certificate}, PAQUEBOT_GRPC_TLS_KEY={key} and"
                f" PAQUEBOT_GRPC_TLS_CA={authorities} cannot be used: {reason(error)}"
            ]
        ) from error


def _check(pems: Pems) -> None:
    """gRPC itself would only refuse every handshake. Raises ValueError."""
    own = x509.load_pem_x509_certificates(pems.certificate)[0]
    try:
        key = serialization.load_pem_private_key(pems.key, password=None)
    except (TypeError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        raise ValueError("the key must be an unencrypted private key in PEM") from error
    if key.public_key() != own.public_key():
        raise ValueError("the key does not belong to the certificate")
    x509.load_pem_x509_certificates(pems.authorities)


class ServerIdentity:
    """Credentials of a gRPC server that requires a certificate of every client."""

    def __init__(self, settings: GrpcTlsSettings) -> None:
        """Raises SettingsError."""
        self._pems = reloaded_pems(settings)
        self._served = self._pems.current
        self._checking = threading.Lock()

    def credentials(self) -> grpc.ServerCredentials:
        return grpc.dynamic_ssl_server_credentials(
            self._served.for_server(),
            self._changed,  # type: ignore[arg-type]  # the stubs do not know that None means: unchanged
            require_client_authentication=True,
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """gRPC calls this on its own threads, before each handshake. None: unchanged."""
        if not self._checking.acquire(blocking=False):
            return None
        try:
            self._pems.look_again()
            if self._pems.current is self._served:
                return None
            self._served = self._pems.current
            return self._served.for_server()
        finally:
            self._checking.release()
