"""`paquebot up`: the whole platform on one machine, each engine and each service a process of its own.

It is the same code as on a cluster, with the same three engines; the tests use it as their fixture.
"""

import os

# gRPC prints a line on stderr for each process started beside its threads; read when it is first imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
