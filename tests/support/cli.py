"""The command line, as tests run it and read what it said."""

import os
import pty
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

PROGRAM = Path(sysconfig.get_path("scripts"), "pgresults")

Cli = Callable[..., Result]


def succeeded(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result: Result, code: int = 1) -> str:
    assert (result.exit_code, result.stdout) == (code, "")
    assert isinstance(result.exception, SystemExit)
    return result.stderr


def on_terminal(command: list[str], environment: dict[str, str], code: int = 0) -> str:
    """What a command prints when its output is a terminal, and ends with a code."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        command, env=environment | {"TERM": "xterm-256color"}, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    printed = b""
    while True:
        try:
            piece = os.read(controller, 65536)
        except OSError:  # Linux: nobody has the terminal open any more
            piece = b""
        if not piece:
            break
        printed += piece
    os.close(controller)
    assert process.wait(60) == code
    return printed.decode()
