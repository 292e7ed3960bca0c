"""Every fuzz target by its name: what reads bytes that a stranger sent."""

from __future__ import annotations

from tests.fuzz import fuzz_dns, fuzz_imap, fuzz_message, fuzz_pop3, fuzz_proxy, fuzz_relay, fuzz_smtp

TARGETS = {
    one.TARGET.name: one.TARGET
    for one in (fuzz_smtp, fuzz_imap, fuzz_pop3, fuzz_message, fuzz_proxy, fuzz_relay, fuzz_dns)
}
