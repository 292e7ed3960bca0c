"""The SMTP grammar: commands, paths, parameters, replies and the framing of DATA (RFC 5321 and its extensions).

No I/O: octets to values and back, for server and client.
"""
