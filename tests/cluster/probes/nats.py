"""Run in a pod, with its own NATS user: publish to, or subscribe to, each subject given as `pub:` or `sub:`.

Prints as JSON which of them the server refused (its error names the subject).
"""

import asyncio
import json
import os
import sys

import nats


async def main() -> None:
    errors: list[str] = []

    async def note(error: Exception) -> None:
        errors.append(str(error))

    user = os.environ["PAQUEBOT_NATS_USER"]
    client = await nats.connect(
        os.environ["PAQUEBOT_NATS_URL"],
        user=user,
        password=os.environ["PAQUEBOT_NATS_PASSWORD"],
        inbox_prefix=f"_INBOX.{user}".encode(),
        error_cb=note,
    )
    refused = []
    for asked in sys.argv[1:]:
        verb, _, subject = asked.partition(":")
        errors.clear()
        if verb == "sub":
            await client.subscribe(subject)
        else:
            await client.publish(subject, b"{}")
        await client.flush()  # the server's refusal comes before its PONG
        if any("permissions violation" in error.lower() for error in errors):
            refused.append(asked)
    print(json.dumps(refused))
    await client.close()


asyncio.run(main())
