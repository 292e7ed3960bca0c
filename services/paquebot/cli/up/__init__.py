"""`paquebot up`: the whole platform on one machine, with a process for each engine and each service.

It runs the same code as a cluster, with the same three engines; the tests use it as their fixture.
"""

import os

# gRPC prints a line on stderr for each process that starts beside its threads; it reads this when first imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
