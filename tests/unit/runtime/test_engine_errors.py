"""All errors of an unavailable engine have one base class, and every service reports them as temporary."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import pytest

from paquebot.delivery.worker import _defer_reason
from paquebot.imap import errors as imap_errors
from paquebot.pop3 import errors as pop3_errors
from paquebot.runtime.errors import EngineRefused, EngineUnavailable
from paquebot.wire.imap import response_codes

_PACKAGES = ("runtime", "blobs", "queue", "rpc", "spool", "directory", "mailstore")


def _exceptions() -> Iterator[type[Exception]]:
    """Return the public exceptions of the packages that call engines."""
    for package in _PACKAGES:
        folder = importlib.import_module(f"paquebot.{package}")
        for found in pkgutil.walk_packages(folder.__path__, f"paquebot.{package}."):
            for name, member in inspect.getmembers(importlib.import_module(found.name), inspect.isclass):
                if issubclass(member, Exception) and member.__module__ == found.name and not name.startswith("_"):
                    yield member


AWAY = sorted(
    {kind for kind in _exceptions() if issubclass(kind, EngineUnavailable) and not issubclass(kind, EngineRefused)}
    - {EngineUnavailable},
    key=lambda kind: kind.__name__,
)


def _error(kind: type[Exception]) -> Exception:
    return kind.__new__(kind)


def test_every_error_named_so_has_the_base() -> None:
    named = {kind for kind in _exceptions() if kind.__name__.endswith("Unavailable")}
    assert {kind.__name__ for kind in named} == {
        "EngineUnavailable",
        "PostgresUnavailable",
        "BlobsUnavailable",
        "QueueUnavailable",
        "DirectoryUnavailable",
        "SpoolUnavailable",
    }
    assert all(issubclass(kind, EngineUnavailable) for kind in named)


@pytest.mark.parametrize("kind", AWAY)
def test_imap_answers_unavailable(kind: type[Exception]) -> None:
    assert imap_errors.reply_to(_error(kind)).code == response_codes.UNAVAILABLE


@pytest.mark.parametrize("kind", AWAY)
def test_pop3_answers_temporary(kind: type[Exception]) -> None:
    assert "[SYS/TEMP]" in repr(pop3_errors.reply_to(_error(kind)))


@pytest.mark.parametrize("kind", AWAY)
def test_delivery_has_a_reason_for_its_metric(kind: type[Exception]) -> None:
    assert _defer_reason(_error(kind)).value.endswith("_unavailable")
