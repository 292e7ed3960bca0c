"""The SMTP grammar: commands, paths, parameters, replies and the framing of DATA (RFC 5321 and its extensions).

Pure: octets in, values out, for both sides of the conversation.
"""
