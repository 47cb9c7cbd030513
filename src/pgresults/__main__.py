"""``python -m pgresults``: the command line."""

from pgresults.cli import main

main()
