"""``python -m pgresults``: the command line."""

from pgresults.cli import main

if __name__ == "__main__":
    main()
