"""The command line: parsing and printing, nothing else."""

import signal
import sys

__all__ = ["main"]

INTERRUPTED = 130
DEFAULT_STORAGE = "default"


def main() -> None:
    """Run the program on the arguments of this process; Ctrl-C ends it without a traceback from the first moment on."""
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends it as any program: there is nothing to clean up yet
    from pgresults.cli.app import run  # takes a moment

    try:
        if interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
