"""`python -m paquebot` is the command `paquebot`."""

import sys

from paquebot.cli.main import main

sys.exit(main())
