"""`python -m paquebot` is the command `paquebot`."""

from paquebot.cli.main import main

main()
