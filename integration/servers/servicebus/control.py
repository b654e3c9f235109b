"""The server's second port: JSON over HTTP, for tests in another process.

POST /METHOD with a body of its arguments calls that method of the server: create_queue, create_topic,
create_subscription, delete, inject, heal, outage, count. The answer is {"result": ...} or {"error": ...}.
"""

import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError

_METHODS = {
    "create_queue",
    "create_topic",
    "create_subscription",
    "delete",
    "inject",
    "heal",
    "outage",
    "count",
}


class Control:
    """Serve the methods of *target*.

    Args:
        target: Whose methods are called.
        host: Where to listen.
        port: Likewise.
    """

    def __init__(self, target: object, host: str, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, answer = _called(target, self.path.strip("/"), self._body())
                written = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(written)))
                self.end_headers()
                self.wfile.write(written)

            def _body(self) -> bytes:
                return self.rfile.read(int(self.headers.get("Content-Length", "0")))

            def log_message(self, *_: Any) -> None:
                """Say nothing of each call."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


def _called(target: object, method: str, body: bytes) -> tuple[int, dict[str, Any]]:
    if method not in _METHODS:
        return 404, {"error": f"no method {method}"}
    try:
        return 200, {"result": getattr(target, method)(**json.loads(body or b"{}"))}
    except Exception as error:  # noqa: BLE001 - it is told to the test that asked
        return 400, {"error": f"{type(error).__name__}: {error}"}


class Refused(RuntimeError):
    """The server would not; the text says why."""


def ask(url: str, method: str, **arguments: Any) -> Any:
    """Call a method of the server at *url*.

    Raises:
        Refused: It would not.
    """
    request = urllib.request.Request(f"{url}/{method}", json.dumps(arguments).encode(), method="POST")  # noqa: S310 - a loopback address of ours
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - likewise
            return json.load(answer)["result"]
    except HTTPError as error:
        raise Refused(json.load(error)["error"]) from error
