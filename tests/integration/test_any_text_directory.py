"""For any text in a request, a healthy directory answers and never returns a temporary error."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from paquebot.recipient_validation.pages import page_token
from paquebot.rpc import DirectoryRefused
from paquebot.v1 import directory_pb2 as pb
from tests.support.directory_service import DirectoryService, directory_service

_CONTROLS = ["\0", "\x1f", "\x80", "\ufffe", "\u202e"]
_MARKS = ["'", '"', "\\", "%", "_", "@", ".", "+", "[::1]", "xn--"]
_ODD = [*_CONTROLS, *_MARKS, "alice", "paquebot.test", "ü", "❤"]
_TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(_ODD), max_size=8).map("".join),
    st.sampled_from(["x" * 5000, "ü" * 3000, "a" * 256 + "@paquebot.test", '"' + "\\ " * 400 + '"@paquebot.test']),
)
_ADDRESSES = st.one_of(
    _TEXTS, _TEXTS.map(lambda text: f"{text}@paquebot.test"), _TEXTS.map(lambda text: f'"{text}"@x.test')
)
_NUMBERS = st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63), 2**31])
_KEYS = st.lists(st.sampled_from(["paquebot.test", "\0", "\ud800", "'"]), min_size=1, max_size=2)
_TOKENS = st.one_of(_TEXTS, _KEYS.map(lambda key: page_token(*key)))
_NO_WAITING = {"PAQUEBOT_LOGIN_DELAY": "0s"}


async def _run(
    work: Callable[[DirectoryService, Any], Coroutine[Any, Any, None]], database: str, values: Any, examples: int = 200
) -> None:
    """Run `work` on one service for each value that Hypothesis draws."""
    async with directory_service(database, **_NO_WAITING) as service:
        await service.domain("paquebot.test")
        await service.account("alice@paquebot.test")
        loop = asyncio.get_running_loop()

        @given(values)
        @settings(max_examples=max(examples, settings().max_examples))
        def tried(value: Any) -> None:
            asyncio.run_coroutine_threadsafe(work(service, value), loop).result(60)

        await asyncio.to_thread(tried)


def _values(field: Any) -> st.SearchStrategy[Any]:
    one: st.SearchStrategy[Any]
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        one = _TOKENS if field.name == "page_token" else _ADDRESSES
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        one = st.booleans()
    elif field.cpp_type == FieldDescriptor.CPPTYPE_UINT32:
        one = st.sampled_from([0, 1, 2**32 - 1])
    else:
        one = _NUMBERS
    return st.lists(one, max_size=3) if field.is_repeated else one


def _requests(kind: type[Message]) -> st.SearchStrategy[Message]:
    fields = {name: _values(field) for name, field in kind.DESCRIPTOR.fields_by_name.items()}
    always = {name: of for name, of in fields.items() if name == "page_token"}
    optional = {name: of for name, of in fields.items() if name not in always}
    return st.fixed_dictionaries(always, optional=optional).map(lambda values: kind(**values))


_METHODS = pb.DESCRIPTOR.services_by_name["Directory"].methods_by_name
_CALLS = st.one_of(
    [
        st.tuples(st.just(name), _requests(getattr(pb, method.input_type.name)))
        for name, method in sorted(_METHODS.items())
        if not method.server_streaming
    ]
)


async def test_administration_answers_or_refuses(database: str) -> None:
    async def work(service: DirectoryService, value: tuple[str, Message]) -> None:
        method, request = value
        with contextlib.suppress(DirectoryRefused):
            await service.admin.ask(getattr(service.admin.stub, method), request)

    await _run(work, database, _CALLS, 500)


async def test_any_login_is_answered(database: str) -> None:
    async def work(service: DirectoryService, value: tuple[str, str, str]) -> None:
        await service.authentication.authenticate(*value, protocol="smtp")

    await _run(work, database, st.tuples(_ADDRESSES, _TEXTS, st.one_of(st.just("192.0.2.1"), _TEXTS)))


async def test_any_path_is_answered(database: str) -> None:
    async def work(service: DirectoryService, value: tuple[str, int, bool]) -> None:
        path, size, may_relay = value
        (found,) = await service.validation.validate((path,), size=size, may_relay=may_relay)
        assert found.verdict
        await service.validation.authorize_sender(1, path)

    sizes = st.sampled_from([0, 1, 2**63 - 1, 2**64 - 1])
    await _run(work, database, st.tuples(_ADDRESSES, sizes, st.booleans()))
