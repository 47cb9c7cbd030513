"""The command line: parsing and printing, nothing else."""

from pgresults.cli.app import main

__all__ = ["main"]
