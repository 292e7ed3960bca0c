"""The IMAP service: RFC 3501 and extensions over the mailstore, for many sessions in one process.

A session is a loop: the assembler of `paquebot.wire.imap` returns what to read, `dispatch` finds the handler of the
command in its state, the handler takes a `CommandContext` and returns a `Reply` or a stream, and one writer sends it
with back-pressure. To follow a command, begin at `Session._execute`.
"""
