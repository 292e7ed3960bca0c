"""What lets SeaweedFS's parts in at each other: new at each start, and its owner's alone."""

from __future__ import annotations

import errno
import tomllib
from pathlib import Path

import pytest
from cryptography import x509

from paquebot.cli.engines import inner_tls
from paquebot.cli.engines.inner_tls import InnerTls


def test_each_start_makes_a_new_certificate_for_its_owner_alone(tmp_path: Path) -> None:
    tls = InnerTls(tmp_path / "inner.pem")
    tls.make()
    first = tls.file.read_bytes()
    tls.make()
    second = tls.file.read_bytes()
    assert first != second
    assert tls.file.stat().st_mode & 0o777 == 0o600
    certificate, authority = x509.load_pem_x509_certificates(second)
    certificate.verify_directly_issued_by(authority)
    assert second.count(b"PRIVATE KEY-----") == 2  # one key, the certificate's


def test_on_a_full_disk_the_last_certificate_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = InnerTls(tmp_path / "inner.pem")
    tls.make()
    kept = tls.file.read_bytes()

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(inner_tls, "write_durably", full)
    tls.make()
    assert tls.file.read_bytes() == kept
    tls.file.unlink()
    with pytest.raises(OSError, match="No space left"):
        tls.make()


def test_every_inner_port_is_named_also_below_a_strange_path(tmp_path: Path) -> None:
    path = tmp_path / 'a "quoted" ü'
    read = tomllib.loads(InnerTls(path).security_toml())
    assert read["grpc"]["ca"] == str(path)
    assert {part for part, value in read["grpc"].items() if isinstance(value, dict)} >= {
        "master",
        "volume",
        "filer",
        "s3",
    }
    assert {part for part, value in read["https"].items() if value["ca"] == str(path)} >= {"master", "volume", "filer"}
    assert all(value["key"] == str(path) for value in read["https"].values())
