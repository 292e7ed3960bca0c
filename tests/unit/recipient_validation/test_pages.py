"""Page tokens: our own are read, all others are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.directory.errors import InvalidValue
from paquebot.recipient_validation.pages import DEFAULT_PAGE, MAX_PAGE, page_key, page_size, page_token

_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(_NAMES, _NAMES)
def test_tokens_are_read_back(domain: str, local: str) -> None:
    assert page_key(page_token(domain, local), 2) == [domain, local]


@given(st.text())
def test_any_other_token_is_refused(token: str) -> None:
    try:
        key = page_key(token, 1)
    except InvalidValue:
        return
    assert key == [""] if not token else page_token(*key)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_key_that_postgres_cannot_compare_is_refused(name: str) -> None:
    with pytest.raises(InvalidValue):
        page_key(page_token(name), 1)


def test_a_token_of_another_list_is_refused() -> None:
    with pytest.raises(InvalidValue):
        page_key(page_token("example.org"), 2)


def test_page_size() -> None:
    assert page_size(0) == DEFAULT_PAGE
    assert page_size(7) == 7
    assert page_size(10**9) == MAX_PAGE
