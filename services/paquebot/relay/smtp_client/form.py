"""The form in which a message goes to a host: as it is, converted for a host that takes less, in chunks, or not at all.

- 8-bit text for a host without 8BITMIME is converted (RFC 6152 §3), with a DKIM signature too: RFC 6376 §5.3 asks
  signers to be ready for it. What is signed from end to end is returned (RFC 8551 §3.1.3).
- Lines that are too long for RFC 5322 §2.1.1 are converted where nothing is signed. Signed ones go as they are, in
  chunks, to a host that offers CHUNKING, and are returned otherwise. Folding at white space breaks no `relaxed`
  signature.
- UTF-8 in the header alone, of a message that was submitted here, is converted: RFC 6531 §3.2 lets a submission server
  do so.
docs/decisions/0030
"""

from collections.abc import Sequence
from dataclasses import dataclass

from paquebot.message import MAX_LINE, ConversionRules, Unconvertible
from paquebot.relay.message import OutgoingFacts, OutgoingMessage, RelayRecipient
from paquebot.relay.metrics import Conversion
from paquebot.relay.outcome import (
    CONVERSION_PROHIBITED,
    NEEDS_EIGHT_BIT,
    NEEDS_SMTPUTF8,
    Host,
    RelayOutcome,
    failed,
)
from paquebot.wire.smtp.extensions import Extensions
from paquebot.wire.smtp.parameters import Body

_NO_UTF8 = "the host does not take UTF-8 addresses and headers"
_NO_EIGHT_BIT = "the host does not take 8-bit text"


@dataclass(frozen=True, slots=True)
class MessageForm:
    """`conversion`: how the message is converted, if it is. `chunked`: with BDAT, not DATA. `size`: bytes as sent."""

    size: int
    body: Body | None = None
    smtputf8: bool = False
    chunked: bool = False
    conversion: ConversionRules | None = None
    change: Conversion | None = None


class MessageUnsupported(Exception):
    """The host can never take the message; `outcome` is for every recipient."""

    def __init__(self, outcome: RelayOutcome) -> None:
        super().__init__(outcome.text)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class FormRules:
    """`eight_bit`: for 8-bit text that a host does not take: convert, bounce or send."""

    eight_bit: str = "convert"

    async def form(
        self, message: OutgoingMessage, recipients: Sequence[RelayRecipient], extensions: Extensions, host: Host
    ) -> MessageForm:
        """Raises MessageUnsupported, OverBudget and what reading the message raises."""
        if message.known:
            return await self._form(message, recipients, extensions, host)
        async with message.opened():  # read once for all that must be known
            return await self._form(message, recipients, extensions, host)

    async def _form(
        self, message: OutgoingMessage, recipients: Sequence[RelayRecipient], extensions: Extensions, host: Host
    ) -> MessageForm:
        facts = await message.facts()
        utf8 = message.needs_smtputf8(facts, recipients)
        if utf8 and "SMTPUTF8" not in extensions:
            return await self._without_utf8(message, facts, recipients, host)
        if facts.eight_bit and not ("8BITMIME" in extensions or utf8) and self.eight_bit != "send":
            return await self._in_seven_bits(message, host)
        body = Body.EIGHT_BIT_MIME if facts.eight_bit else None
        if not (facts.long_header or facts.long_body):
            return MessageForm(facts.size, body, utf8)
        return await self._with_short_lines(message, facts, extensions, MessageForm(facts.size, body, utf8), host)

    async def _without_utf8(
        self, message: OutgoingMessage, facts: OutgoingFacts, recipients: Sequence[RelayRecipient], host: Host
    ) -> MessageForm:
        refused = MessageUnsupported(failed(NEEDS_SMTPUTF8, _NO_UTF8, host))
        if not message.submitted or self.eight_bit != "convert" or not message.has_ascii_addresses(recipients):
            raise refused
        rules = ConversionRules(seven_bit=True, line=message.line or MAX_LINE, strict=True)
        try:
            return MessageForm(await message.converted_size(rules), conversion=rules, change=Conversion.ASCII_HEADER)
        except Unconvertible:
            raise refused from None

    async def _in_seven_bits(self, message: OutgoingMessage, host: Host) -> MessageForm:
        if self.eight_bit == "bounce":
            raise MessageUnsupported(failed(NEEDS_EIGHT_BIT, _NO_EIGHT_BIT, host))
        rules = ConversionRules(seven_bit=True, line=message.line or MAX_LINE)
        try:
            return MessageForm(await message.converted_size(rules), conversion=rules, change=Conversion.SEVEN_BIT)
        except Unconvertible as error:
            raise MessageUnsupported(failed(CONVERSION_PROHIBITED, f"{_NO_EIGHT_BIT}, and {error}", host)) from None

    async def _with_short_lines(
        self, message: OutgoingMessage, facts: OutgoingFacts, extensions: Extensions, plain: MessageForm, host: Host
    ) -> MessageForm:
        rules = ConversionRules(line=message.line, gentle=facts.signatures.present)
        try:
            if facts.signatures.simple_header:
                raise Unconvertible("a signed message cannot be folded without breaking its signature")
            size = await message.converted_size(rules)
            return MessageForm(size, plain.body, plain.smtputf8, conversion=rules, change=Conversion.SHORT_LINES)
        except Unconvertible as error:
            if "CHUNKING" in extensions:
                return _chunked(facts, extensions, plain)
            text = f"the message has lines of more than {message.line} bytes, and {error}"
            raise MessageUnsupported(failed(CONVERSION_PROHIBITED, text, host)) from None


def _chunked(facts: OutgoingFacts, extensions: Extensions, plain: MessageForm) -> MessageForm:
    """RFC 3030 §3: without BINARYMIME long lines are not promised; hosts that offer CHUNKING take them."""
    body = Body.BINARY_MIME if facts.long_body and "BINARYMIME" in extensions else plain.body
    return MessageForm(facts.size, body, plain.smtputf8, chunked=True, change=Conversion.CHUNKS)
