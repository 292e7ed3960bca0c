"""The fixture `imap_stack`, which the IMAP tests of a test run share. A test that uses it imports its parts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from paquebot.cli.engines.nats import NatsEngine
from paquebot.cli.engines.postgres import PostgresEngine
from paquebot.cli.engines.s3 import S3Engine

if TYPE_CHECKING:
    from tests.support.imap_world import ImapStack


@pytest.fixture(scope="session")
async def imap_stack(
    nats_engine: NatsEngine,
    s3_engine: S3Engine,
    postgres_engine: PostgresEngine,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[ImapStack]:
    """Directory, database and bucket for IMAP."""
    from tests.support.imap_world import imap_stack_on

    certificates = tmp_path_factory.mktemp("imap-tls")
    async with imap_stack_on(nats_engine, s3_engine, postgres_engine, certificates) as stack:
        yield stack
