"""Run in a pod, with its own database role: each statement given, and what PostgreSQL says to it. Printed as JSON."""

import asyncio
import json
import os
import sys

import asyncpg


async def main() -> None:
    password = os.environ["PAQUEBOT_POSTGRES_PASSWORD"]
    connection = await asyncpg.connect(os.environ["PAQUEBOT_POSTGRES_DSN"], password=password, timeout=10)
    said = {}
    for statement in sys.argv[1:]:
        try:
            await connection.execute(statement)
        except asyncpg.PostgresError as error:
            said[statement] = type(error).__name__
        else:
            said[statement] = "done"
    await connection.close()
    print(json.dumps(said))


asyncio.run(main())
