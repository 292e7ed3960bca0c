"""The IMAP service: RFC 3501 and extensions over the mailstore, for many sessions in one process.

A session is a loop: the assembler of `paquebot.wire.imap` says what to read, `dispatch` finds the handler of
the command in its state, the handler returns a `Reply`, and one writer sends it with back-pressure.

    connection.py          bytes in and out: lines, literals, TLS, deadlines, high-water marks
    session.py             the loop, the greeting, the error budget, BYE
    states.py, dispatch.py NotAuthenticated | Authenticated | Selected | LoggedOut, and who handles what
    any_state.py ... idle.py   the handlers, a file for each chapter of RFC 3501 §6
    view.py, updates.py    sequence numbers, and when the client learns of changes (RFC 3501 §5.2, §7.4.1)
    fetch.py, search.py    what a FETCH or SEARCH needs, cheapest source first
    message_bodies.py, bodies.py, reads.py   windows of messages, the cache, and the requests to S3 under way
    feed.py, changes.py    changes of mailboxes, shared among the sessions of the process
    telling.py             hints to other processes
"""
