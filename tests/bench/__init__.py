"""The benchmark: our platform and a private Postfix + Dovecot under the same load, in one run. `make bench`."""
