-- A message that was retrieved over POP3 is marked as read; everything else of a message stays out of POP3's reach.
GRANT UPDATE (mod_seq, flags, keywords) ON mailstore.messages TO paquebot_pop3;
