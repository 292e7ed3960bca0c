"""The fixture `pop3_stack`, which all POP3 tests of a run share. Tests that use it import it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from paquebot.cli.engines.nats import NatsEngine
from paquebot.cli.engines.postgres import PostgresEngine
from paquebot.cli.engines.s3 import S3Engine

if TYPE_CHECKING:
    from tests.support.pop3_world import Pop3Stack


@pytest.fixture(scope="session")
async def pop3_stack(
    nats_engine: NatsEngine,
    s3_engine: S3Engine,
    postgres_engine: PostgresEngine,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Pop3Stack]:
    """Directory, database and bucket for POP3."""
    from tests.support.pop3_world import pop3_stack_on

    certificates = tmp_path_factory.mktemp("pop3-tls")
    async with pop3_stack_on(nats_engine, s3_engine, postgres_engine, certificates) as stack:
        yield stack
