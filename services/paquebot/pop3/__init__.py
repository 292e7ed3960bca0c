"""The POP3 service: maildrops over RFC 1939 with CAPA, STLS, SASL PLAIN, response codes and pipelining.

A maildrop is INBOX as it is at the login, under a lease in the mailstore that one session of all processes has at a
time. `session` runs a client's session, `login` and `transaction` answer the commands of their states, `update` applies
the deletions, `prefetch` reads messages ahead of the client.
"""
