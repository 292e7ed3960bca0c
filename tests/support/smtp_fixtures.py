"""The fixture `smtp_stack`, which all SMTP tests of a run share. Tests that use it import it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from paquebot.cli.engines.nats import NatsEngine
from paquebot.cli.engines.postgres import PostgresEngine
from paquebot.cli.engines.s3 import S3Engine

if TYPE_CHECKING:
    from tests.support.smtp_world import SmtpStack


@pytest.fixture(scope="module")  # tests of the queue, between two modules, leave no stream
async def smtp_stack(
    nats_engine: NatsEngine,
    s3_engine: S3Engine,
    postgres_engine: PostgresEngine,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[SmtpStack]:
    """Directory, stream and bucket for SMTP."""
    from tests.support.smtp_world import smtp_stack_on

    async with smtp_stack_on(nats_engine, s3_engine, postgres_engine, tmp_path_factory.mktemp("smtp-tls")) as stack:
        yield stack
