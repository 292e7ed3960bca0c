"""A job as it comes from the stream: read, and checked for what nobody after it could work with.

What can never work is put aside at once and not tried for days: text that PostgreSQL does not store, a name that makes
no subject, a time that no calendar has. Addresses are not judged here: a bad one is told to its sender.
"""

import string
from typing import Final

from google.protobuf.message import DecodeError

from paquebot.v1.queue_pb2 import RelayJob

_MOST_MS: Final = 2**43
"""In the year 2248."""
_TOKEN: Final = frozenset("-_" + string.ascii_letters + string.digits)
"""Part of a subject, for it names the job of the next attempt."""


class UnreadableJob(Exception):
    """It can never be worked on; the text says why."""


def read_job(payload: bytes) -> RelayJob:
    """Raises UnreadableJob."""
    try:
        job = RelayJob.FromString(payload)
    except DecodeError:
        raise UnreadableJob("no RelayJob") from None
    if not job.queue_id or not _TOKEN.issuperset(job.queue_id):
        raise UnreadableJob("the queue id is none")
    if not 0 <= job.accepted_at_ms < _MOST_MS:
        raise UnreadableJob("the time of acceptance is none")
    texts = [job.domain, job.reverse_path, job.envid, job.login, *job.relayed]
    texts += (text for one in job.recipients for text in (one.forward_path, one.orcpt, one.original))
    if any("\0" in text for text in texts):
        raise UnreadableJob("a text has a byte 0")
    return job
