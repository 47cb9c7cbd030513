"""Make the pictures of the terminal in the documents: ``python docs/pictures/make.py`` runs the commands they show."""

import fcntl
import getpass
import io
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import tempfile
import termios
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pgresults import EmbeddedPostgres, PostgresStorage, ResultStore

_HERE = Path(__file__).parent
_WIDTH = 96
_COMMANDS = {
    "ls": "ls",
    "get": "get reports/2030/may",
    "history": "history reports/2030/may",
    "locks": "locks",
    "stats": "stats --days 3",
    "explain": "explain reports/2030/june",
}


def _fill(server: EmbeddedPostgres) -> ResultStore:
    store = ResultStore(result_storage=PostgresStorage(server), locks=True)
    for month, rows in (("april", 990), ("may", 1000), ("may", 1001)):
        report = {"rows": rows, "total": rows * 1.5, "currency": "EUR"}
        store.write(report, key=f"reports/2030/{month}", tags=["monthly"], expires_in=timedelta(days=30))
    store.write(list(range(1000)), key="primes/below/10000")
    store.write("draft", key="reports/2030/june", expires_in=timedelta(hours=4))
    store.delete("reports/2030/june", reason="counted twice")
    store.acquire_lock("reports/2030/july", holder="nightly@worker-3")
    return store


def _shown(command: str, directory: Path, width: int) -> str:
    """What a command prints on a terminal so wide, with its colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    environment = {
        **os.environ,
        "TERM": "xterm-256color",
        "COLUMNS": str(width),
        "PGRESULTS_EMBEDDED_PATH": str(directory),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "pgresults", *command.split()],
        stdout=theirs,
        stderr=theirs,
        env=environment,
        cwd=directory,
    )
    os.close(theirs)
    printed = b""
    try:
        while content := os.read(ours, 65536):
            printed += content
    except OSError:  # nobody has it open any more
        pass
    process.wait()
    somebody = printed.decode().replace(f"{getpass.getuser()}@{socket.gethostname()}", "ada@host")
    return somebody.replace("\r\n", "\n").rstrip()


def _picture(command: str, printed: str, width: int) -> str:
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ pgresults {command}", style="bold"))
    console.print(Text.from_ansi(printed))
    drawn = console.export_svg(title="pgresults", unique_id=command.split()[0])
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)  # fonts that would be fetched from elsewhere


def main() -> None:
    """Draw each command, or with a width as the argument print all of them so wide."""
    width = int(sys.argv[1]) if len(sys.argv) > 1 else _WIDTH
    with tempfile.TemporaryDirectory() as directory:
        server = EmbeddedPostgres(Path(directory, "server"))
        with _fill(server):
            for name, command in _COMMANDS.items():
                printed = _shown(command, server.path, width)
                if len(sys.argv) > 1:
                    print(f"$ pgresults {command}\n{printed}\n")
                else:
                    (_HERE / f"{name}.svg").write_text(_picture(command, printed, width))
        server.stop()


if __name__ == "__main__":
    main()
