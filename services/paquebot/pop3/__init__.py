"""The POP3 service: maildrops over RFC 1939 with CAPA, STLS, SASL PLAIN, response codes and pipelining.

A maildrop is INBOX, fixed for a session, under a lease in the mailstore that only one session of all processes has.
`server` accepts connections, `session` runs one, `authorization` and `transaction` answer the commands of their
states, `update` applies what the session did, `reading` fetches messages ahead of the client.
"""
