"""The certificates with which recipient_validation and its callers prove who they are (mutual TLS).

Both sides read three files: their own certificate and key, and the authorities that they trust, of which there may be
several while one takes the place of another. The files are looked at again, so that a renewal needs no restart: by the
server at each handshake, by a client at most once a second while it calls. A connection goes on with what it began
with.
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
    """Whole files in PEM; the key fits the certificate."""

    certificate: bytes
    key: bytes
    authorities: bytes

    def for_channel(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.authorities, self.key, self.certificate)

    def for_server(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], self.authorities)


def reloaded_pems(settings: GrpcTlsSettings) -> Reloaded[Pems]:
    """The files of the settings, which must be set. Raises SettingsError when they cannot be used at the start."""
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
        raise ValueError("the key is no unencrypted private key in PEM") from error
    if key.public_key() != own.public_key():
        raise ValueError("the key is not of this certificate")
    x509.load_pem_x509_certificates(pems.authorities)


class ServerIdentity:
    """Credentials of a gRPC server that asks every client for its certificate."""

    def __init__(self, settings: GrpcTlsSettings) -> None:
        """Raises SettingsError."""
        self._pems = reloaded_pems(settings)
        self._served = self._pems.current
        self._looking = threading.Lock()

    def credentials(self) -> grpc.ServerCredentials:
        return grpc.dynamic_ssl_server_credentials(
            self._served.for_server(),
            self._changed,  # type: ignore[arg-type]  # None is no change, which the stubs do not know
            require_client_authentication=True,
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """gRPC asks on threads of its own, before each handshake. None: as before."""
        if not self._looking.acquire(blocking=False):
            return None
        try:
            self._pems.look_again()
            if self._pems.current is self._served:
                return None
            self._served = self._pems.current
            return self._served.for_server()
        finally:
            self._looking.release()
