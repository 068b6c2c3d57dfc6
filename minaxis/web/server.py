"""The live page on this machine, answered by PyTorch: `python cap_demo.py --web`.

Three requests are answered: the page, `info`, and `reply`. Nothing that a browser sends is used as
a path, a module or a file name. Another website that the same browser shows cannot use the server:
it would send its own Origin, or, with a name that it has pointed at this machine, its own Host.
"""

import ipaddress
import json
import select
import socket
import sys
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from minaxis.web.answers import Engine, Event
from minaxis.web.page import HERE, build_page

MOST_BYTES = 1_000_000  # of a request
MOST_WAITING = 8  # answers that wait for the one that is being given
SAFE = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
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
        self.engine, self.port = engine, self.server_address[1]
        remote = (HERE / "remote.js").read_text(encoding="utf-8")
        self.page = build_page(remote, connect="'self'").encode()
        self.info = json.dumps(engine.info | {"served": True}).encode()
        self.turn, self.waiting = threading.Lock(), threading.Semaphore(MOST_WAITING)
        # Any number reaches an open address. A name could be another website's, save these.
        self.names, self.open = {host, "localhost"}, host in ("0.0.0.0", "::")

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that have gone."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def is_own(self, host: str) -> bool:
        """Whether a Host header names this server."""
        name, _, port = host.rpartition(":")
        name = name.strip("[]")
        if port != str(self.port):
            return False
        return name in self.names or is_loopback(name) or (self.open and is_number(name))


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    timeout = 60  # seconds that a client may take to send its request
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        pages = {
            "/": ("text/html", self.server.page),
            "/info": ("application/json", self.server.info),
        }
        if not self.is_allowed():
            return
        if self.path not in pages:
            return self.answer(404, "text/plain", b"There is only the page at /.")
        self.answer(200, *pages[self.path])

    def do_POST(self) -> None:
        if not self.is_allowed():
            return
        length = self.headers.get("Content-Length", "")
        if self.path != "/reply" or self.headers.get_content_type() != "application/json":
            return self.answer(404, "text/plain", b"Only JSON to /reply is answered.")
        if not length.isdecimal() or len(length) > 7 or int(length) > MOST_BYTES:
            return self.answer(413, "text/plain", b"A request has at most 1 MB.")
        try:
            request = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            return self.answer(400, "text/plain", b"This is no JSON.")
        if not self.server.waiting.acquire(blocking=False):
            return self.answer(503, "text/plain", b"Too many answers are waited for. Try again.")
        try:
            with self.server.turn:
                self.stream(self.server.engine.reply(request))
        finally:
            self.server.waiting.release()

    def is_allowed(self) -> bool:
        """Whether the request is for this server and from its own page; if not, it is refused."""
        host = self.headers.get("Host", "")
        origin = self.headers.get("Origin", f"http://{host}")
        site = self.headers.get("Sec-Fetch-Site", "none")
        if (
            self.server.is_own(host)
            and origin == f"http://{host}"
            and site in ("none", "same-origin")
        ):
            return True
        self.answer(403, "text/plain", b"Only this server's own page may ask.")
        return False

    def answer(self, status: int, kind: str, body: bytes) -> None:
        self.close_connection = True  # what remains of a refused request is not read
        self.send_response(status)
        for name, value in SAFE.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def stream(self, events: Generator[Event, None, None]) -> None:
        """Send events as they come, a line each. A client that has gone stops its answer."""
        self.close_connection = True  # the end of the connection is the end of the answer
        self.send_response(200)
        for name, value in SAFE.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            while not self.client_has_gone() and (event := next(events, None)):
                self.wfile.write(json.dumps(event).encode() + b"\n")
        except ValueError as error:
            self.wfile.write(json.dumps({"type": "error", "message": str(error)}).encode() + b"\n")
        except ConnectionError:
            pass
        finally:
            events.close()  # removes the hooks of an answer that was not finished

    def client_has_gone(self) -> bool:
        ready, _, _ = select.select([self.connection], [], [], 0)
        return bool(ready) and not self.connection.recv(1, socket.MSG_PEEK)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: what is said on the page stays on the page."""


def is_number(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def is_loopback(name: str) -> bool:
    """Whether a name or number reaches this machine only."""
    return name == "localhost" or (is_number(name) and ipaddress.ip_address(name).is_loopback)


def serve(engine: Engine, address: str) -> None:
    """Serve the page until Ctrl-C.

    Args:
        address: HOST:PORT, such as "127.0.0.1:8642".

    Raises:
        ValueError: not an address.
        OSError: the address is in use, or not this machine's.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"an address must be HOST:PORT, such as 127.0.0.1:8642, got {address!r}")
    if not is_loopback(host):
        print(
            f"warning: {host} can be reached from other machines. Whoever reaches it can use the "
            "model, and nothing that is sent is encrypted.", file=sys.stderr,
        )  # fmt: skip
    with Server(engine, host, int(port)) as server:
        shown = f"[{host}]" if ":" in host else host
        print(f"open http://{shown}:{server.port}/ in a browser; Ctrl-C ends", flush=True)
        server.serve_forever()
