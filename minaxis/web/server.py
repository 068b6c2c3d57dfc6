"""The live page on this machine, answered by PyTorch: `python cap_demo.py --web`.

Three requests are answered: the page, `info`, and `reply`. Nothing that a browser sends is used as
a path, a module or a file name. Another website that the same browser shows cannot use the server:
it would send its own Origin, or, with a name that it has pointed at this machine, its own Host.
"""

import json
import select
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

from minaxis.web.answers import Engine, Event
from minaxis.web.page import HERE, build_page

MOST_BYTES = 1_000_000  # of a request
MOST_WAITING = 8  # answers that are given or wait
HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Connection": "close",
}


class Server(ThreadingHTTPServer):
    """The page and its engine, at one address. One answer is given at a time; others wait.

    Args:
        engine: answers the messages.
        host: the name or the number of an address of this machine.
        port: 0 takes a free one.

    Raises:
        OSError: the address is in use, or not this machine's.
    """

    daemon_threads = True

    def __init__(self, engine: Engine, host: str, port: int):
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), Handler)
        self.engine, self.host, self.port = engine, host, self.server_address[1]
        remote = (HERE / "remote.js").read_text(encoding="utf-8")
        self.pages = {
            "/": ("text/html", build_page(remote, connect="'self'")),
            "/info": ("application/json", json.dumps(engine.info | {"served": True})),
        }
        self.turn, self.waiting = threading.Lock(), threading.Semaphore(MOST_WAITING)

    def is_own(self, host: str) -> bool:
        """Whether a Host header names this server.

        An open address is reached by any number of this machine. A name could be another website's.
        """
        name, _, port = host.rpartition(":")
        name = name.strip("[]")
        is_open = self.host in ("0.0.0.0", "::") and is_number(name)
        return port == str(self.port) and (name == self.host or is_loopback(name) or is_open)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that have gone."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    timeout = 60  # seconds that a client may take to send its request

    def do_GET(self) -> None:
        if not self.is_allowed():
            self.answer(403, "Only this server's own page may ask.")
        elif self.path not in self.server.pages:
            self.answer(404, "There is only the page at /.")
        else:
            kind, text = self.server.pages[self.path]
            self.answer(200, text, kind)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not self.is_allowed():
            return self.answer(403, "Only this server's own page may ask.")
        if self.path != "/reply" or self.headers.get_content_type() != "application/json":
            return self.answer(404, "Only JSON to /reply is answered.")
        if not length.isdecimal() or len(length) > 7 or int(length) > MOST_BYTES:
            return self.answer(413, "A request has at most 1 MB.")
        try:
            request = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            return self.answer(400, "This is no JSON.")
        if not self.server.waiting.acquire(blocking=False):
            return self.answer(503, "Too many answers are waited for. Try again.")
        try:
            with self.server.turn:
                self.stream(self.server.engine.reply(request))
        finally:
            self.server.waiting.release()

    def is_allowed(self) -> bool:
        """Whether the request is for this server, and from its own page or from no page."""
        host = self.headers.get("Host", "")
        own = self.headers.get("Origin", f"http://{host}") == f"http://{host}"
        site = self.headers.get("Sec-Fetch-Site", "none")
        return self.server.is_own(host) and own and site in ("none", "same-origin")

    def start(self, status: int, kind: str) -> None:
        self.send_response(status)
        for name, value in (HEADERS | {"Content-Type": f"{kind}; charset=utf-8"}).items():
            self.send_header(name, value)
        self.end_headers()

    def answer(self, status: int, text: str, kind: str = "text/plain") -> None:
        self.start(status, kind)
        self.wfile.write(text.encode())

    def stream(self, events: Generator[Event, None, None]) -> None:
        """Send events as they come, a line each. A client that has gone stops its answer."""
        self.start(200, "application/x-ndjson")
        try:
            while not self.client_has_gone() and (event := next(events, None)):
                self.wfile.write(json.dumps(event).encode() + b"\n")
        except ValueError as error:
            event = {"type": "error", "message": str(error)}
            self.wfile.write(json.dumps(event).encode() + b"\n")
        finally:
            events.close()  # removes the hooks of an answer that was not finished

    def client_has_gone(self) -> bool:
        ready, _, _ = select.select([self.connection], [], [], 0)
        return bool(ready) and not self.connection.recv(1, socket.MSG_PEEK)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: what is said on the page stays on the page."""


def is_number(name: str) -> bool:
    """Whether a name is the number of an address."""
    try:
        return bool(ip_address(name))
    except ValueError:
        return False


def is_loopback(name: str) -> bool:
    """Whether a name or number reaches this machine only."""
    return name == "localhost" or (is_number(name) and ip_address(name).is_loopback)


def serve(engine: Engine, address: str) -> None:
    """Serve the page until Ctrl-C.

    Args:
        address: HOST:PORT, such as "127.0.0.1:8642".

    Raises:
        ValueError: not an address.
        OSError: the address is in use, or not this machine's.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"an address must be HOST:PORT, such as 127.0.0.1:8642, got {address!r}")
    if not is_loopback(host.strip("[]")):
        print(
            f"warning: {host} can be reached from other machines. Whoever reaches it can use the "
            "model, and nothing that is sent is encrypted.", file=sys.stderr,
        )  # fmt: skip
    with Server(engine, host.strip("[]"), int(port)) as server, suppress(KeyboardInterrupt):
        print(f"open http://{host}:{server.port}/ in a browser; Ctrl-C ends", flush=True)
        server.serve_forever()
