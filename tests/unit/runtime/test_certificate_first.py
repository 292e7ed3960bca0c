"""A service reports a bad certificate at its start with exit code 2, before it waits for its engines."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.support.loopback import free_port

pytestmark = pytest.mark.slow

_ENTRY = "import sys; from paquebot.cli.main import main; sys.exit(main())"


def _environ(certificate: Path, key: Path) -> dict[str, str]:
    nowhere = f"127.0.0.1:{free_port()}"
    listeners = ("SMTP_MX", "SMTP_SUBMISSION", "SMTP_SUBMISSIONS", "IMAP", "IMAPS", "POP3", "POP3S", "METRICS")
    settings = {
        "NATS_URL": f"nats://{nowhere}",
        "NATS_USER": "nobody",
        "NATS_PASSWORD": "nothing",
        "S3_ENDPOINT": f"http://{nowhere}",
        "S3_BUCKET": "none",
        "S3_ACCESS_KEY": "none",
        "S3_SECRET_KEY": "nothing",
        "POSTGRES_DSN": f"postgresql://nobody:nothing@{nowhere}/none",
        "RECIPIENT_VALIDATION": nowhere,
        "HOSTNAME": "mx.paquebot.test",
        "TLS_CERTIFICATE": str(certificate),
        "TLS_KEY": str(key),
        **{f"{name}_LISTEN": "127.0.0.1:0" for name in listeners},
    }
    return {f"PAQUEBOT_{name}": value for name, value in settings.items()}


@pytest.mark.parametrize("service", ["smtp-ingress", "imap", "pop3"])
@pytest.mark.parametrize("content", [None, "no PEM"], ids=["missing", "broken"])
async def test_bad_certificate_ends_the_service_before_the_engines_are_tried(
    tmp_path: Path, service: str, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "tls.crt").write_text(content)
    environ = _environ(tmp_path / "tls.crt", tmp_path / "tls.key")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _ENTRY, service, env=environ, stdout=pipe, stderr=pipe
    )
    try:
        async with asyncio.timeout(60):
            _, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    assert process.returncode == 2, err.decode()
    assert "PAQUEBOT_TLS_CERTIFICATE" in err.decode()
    assert str(tmp_path / "tls.crt") in err.decode()
