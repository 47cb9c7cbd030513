"""A TCP proxy before a Postgres server, which loses answers and falls silent when it is told to."""

import socket
import threading
from contextlib import suppress
from typing import Any, Self

from sqlalchemy import URL


class Proxy:
    """Passes bytes between clients and the server of a URL.

    While ``losses`` is above 0, the answer to a message that contains ``marker`` is awaited from the server and then
    thrown away with the connection; each time counts ``losses`` down. While ``silent``, no answer is passed on.
    """

    def __init__(self, url: URL) -> None:
        self._server = url
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self.url = url.set(host="127.0.0.1", port=self._listener.getsockname()[1], query={})
        self.marker = b""
        self.losses = 0
        self.silent = False

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for open_socket in self._sockets:
            _close(open_socket)
        for thread in self._threads:
            thread.join()

    def lose(self, marker: bytes, times: int = 1) -> None:
        """Lose the answers to so many messages that contain the marker."""
        self.marker, self.losses = marker, times

    def refuse(self) -> None:
        """Take no more connections."""
        _close(self._listener)

    def _start(self, target: Any, *arguments: Any) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, server = self._listener.accept()[0], _connect(self._server)
                self._sockets += [client, server]
                lost = threading.Event()
                self._start(self._ask, client, server, lost)
                self._start(self._answer, client, server, lost)

    def _ask(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                if self.losses and self.marker in data:
                    self.losses -= 1
                    lost.set()
                server.sendall(data)
        _close(server)

    def _answer(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while (data := server.recv(1 << 16)) and not lost.is_set():
                if not self.silent:
                    client.sendall(data)
        _close(client)
        _close(server)


def _connect(url: URL) -> socket.socket:
    host = str(url.query.get("host") or url.host or "127.0.0.1")
    port = int(str(url.query.get("port") or url.port or 5432))
    if not host.startswith("/"):
        return socket.create_connection((host, port))
    server = socket.socket(socket.AF_UNIX)
    server.connect(f"{host}/.s.PGSQL.{port}")
    return server


def _close(open_socket: socket.socket) -> None:
    with suppress(OSError):
        open_socket.shutdown(socket.SHUT_RDWR)
    open_socket.close()
