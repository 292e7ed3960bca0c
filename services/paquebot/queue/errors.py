"""Why a call to NATS failed, and what its answers mean."""

import json
from typing import Any

from nats.aio.msg import Msg

from paquebot.observability.metrics import Fault, fault_of
from paquebot.runtime.errors import EngineRefused, EngineUnavailable

_TOO_LARGE = 10054  # the stream's max_msg_size
NO_CONSUMER = 10014
NO_MESSAGE = 10037
"""`QueueRefused.code`: no message found."""


class QueueUnavailable(EngineUnavailable):
    """JetStream cannot be used now, or did not acknowledge in time: the message may or may not be stored."""


class QueueRefused(QueueUnavailable):
    """JetStream refused: nothing was stored. `code` is its `err_code`; 0: the refusal is not JetStream's own."""

    def __init__(self, reason: str, code: int = 0) -> None:
        super().__init__(reason)
        self.code = code


class QueueTooLarge(QueueRefused, EngineRefused):
    """A message or a batch is larger than the server accepts: it can never be stored."""


def nats_fault(error: BaseException) -> Fault:
    """For the metric of failed calls."""
    if isinstance(error, QueueRefused) and error.__cause__ is None:
        return Fault.REFUSED
    found = fault_of(error)
    return Fault.CONNECTION if found is Fault.OTHER and isinstance(error, QueueUnavailable) else found


def parse_answer(answer: Msg) -> dict[str, Any]:
    """The answer to a JetStream request. Raises QueueUnavailable, QueueRefused."""
    try:
        body: dict[str, Any] = json.loads(answer.data)
    except ValueError:
        raise QueueUnavailable("the answer is not JSON") from None
    if error := body.get("error"):
        code = int(error.get("err_code", 0))
        refused = QueueTooLarge if code == _TOO_LARGE else QueueRefused
        raise refused(f"{error.get('code')} {code}: {error.get('description')}", code)
    return body
