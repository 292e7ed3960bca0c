"""No encoding brings a control character into an original recipient, and so into a DSN."""

from __future__ import annotations

import pytest

from paquebot.wire.smtp.parameters import BadParameter, parse_rcpt_parameters


@pytest.mark.parametrize(
    "address", ["a+0D+0Ab", "a+00b", "a+7Fb", "a\x85b", "a\x9bb", "a\\x{0D}b", "a\\x{85}b", "a\\x{7F}b", "a\\x{D800}b"]
)
@pytest.mark.parametrize("addr_type", ["rfc822", "utf-8"])
def test_controls_are_refused(addr_type: str, address: str) -> None:
    if addr_type == "rfc822" and "\\" in address:
        assert parse_rcpt_parameters(f"ORCPT=rfc822;{address}", {"DSN"}).orcpt.isprintable()
        return
    with pytest.raises(BadParameter):
        parse_rcpt_parameters(f"ORCPT={addr_type};{address}", {"DSN"})
