"""A double of Vault's transit engine: real cryptography over HTTP, for the real client, with the vault's own words where it refuses.

Source: OpenBao 2.7, transit: what `integration/keys/test_vault.py` shows of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import time
import uuid
from collections import Counter, deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import hvac
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


@dataclass
class Answer:
    """What the next request is answered with, whatever it asks."""

    status: int = 200
    errors: tuple[str, ...] = ()
    body: bytes | None = None
    hang_up: bool = False

    def as_bytes(self) -> bytes:
        return json.dumps({"errors": self.errors}).encode() if self.body is None else self.body


class Refusal(Exception):
    """Ends a request with an error."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.answer = Answer(status, (words,))


@dataclass
class Key:
    """A key of transit."""

    versions: list[bytes]
    derived: bool = False
    oldest: int = 1
    """``min_decryption_version``."""
    config: dict[str, Any] = field(default_factory=lambda: {"auto_rotate_period": 86400})
    """More that is read of it."""


class TransitDouble:
    """A vault at `url` with a transit engine at ``transit``.

    Attributes:
        asked: How often each operation was asked: ``encrypt``, ``decrypt``, ``lookup-self`` ...
        answers: What the next requests are answered with.
        denied: Operations for which the token has no right.
        expired: Whether the token has expired.
        away: Whether every request is answered with 503.
    """

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.asked: Counter[str] = Counter()
        self.answers: deque[Answer] = deque()
        self.denied: set[str] = set()
        self.away = False
        self.expired = False
        self.token: dict[str, Any] = {}
        """What is told of the token."""
        self.clock_off = 0.0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.vault = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def begin_again(self) -> None:
        """Be as if nobody had asked anything, but for the keys."""
        self.asked.clear()
        self.answers.clear()
        self.denied.clear()
        self.expired = self.away = False
        self.token = {}
        self.clock_off = 0.0

    def client(self, **options: Any) -> hvac.Client:
        return hvac.Client(self.url, token="a token of tests", **{"timeout": 20, **options})

    def new_key(self, *, derived: bool = False) -> str:
        name = f"orders-{uuid.uuid4().hex[:12]}"
        self.keys[name] = Key([os.urandom(32)], derived=derived)
        return name

    def rotate(self, name: str) -> None:
        self.keys[name].versions.append(os.urandom(32))

    def answer(self, path: str, body: bytes) -> bytes:
        parts = path.strip("/").split("/")
        operation = parts[2] if parts[1] == "transit" else parts[-1]
        with self._lock:
            self.asked[operation] += 1
            fault = Answer(503) if self.away else self.answers.popleft() if self.answers else None
        if fault is not None:
            raise _Faulty(fault)
        if self.expired or operation in self.denied:
            raise Refusal(403, "permission denied")
        if operation in ("lookup-self", "health"):
            told = {"policies": ["default"], **self.token}
            return json.dumps({"data": told, "server_time_utc": time.time() + self.clock_off}).encode()
        if parts[1] != "transit":
            raise Refusal(404, f'no handler for route "{path}". route entry not found.')
        key = self.keys.get(parts[3])
        if operation == "keys":
            return self._read(key)
        if key is None:
            raise Refusal(400, "encryption key not found")
        asked = {
            name: base64.b64decode(value) for name, value in json.loads(body).items() if name != "ciphertext"
        }
        if key.derived and not asked.get("context"):
            raise Refusal(
                400, "missing 'context' for key derivation; the key was created using a derived key"
            )
        if operation == "encrypt":
            return self._encrypt(key, asked)
        return self._decrypt(key, json.loads(body)["ciphertext"], asked)

    @staticmethod
    def _read(key: Key | None) -> bytes:
        if key is None:
            raise Refusal(404, "")
        return _data(type="aes256-gcm96", latest_version=len(key.versions), **key.config)

    def _encrypt(self, key: Key, asked: dict[str, bytes]) -> bytes:
        nonce = os.urandom(12)
        version = len(key.versions)
        sealed = nonce + self._cipher(key, version, asked).encrypt(
            nonce, asked["plaintext"], asked.get("associated_data")
        )
        return _data(ciphertext=f"vault:v{version}:{base64.b64encode(sealed).decode()}", key_version=version)

    def _decrypt(self, key: Key, ciphertext: str, asked: dict[str, bytes]) -> bytes:
        _, version, text = ciphertext.split(":")
        number = int(version[1:])
        if number > len(key.versions):
            raise Refusal(400, "invalid ciphertext: version is too new")
        if number < key.oldest:
            raise Refusal(400, "ciphertext or signature version is disallowed by policy (too old)")
        sealed = base64.b64decode(text)
        try:
            plaintext = self._cipher(key, number, asked).decrypt(
                sealed[:12], sealed[12:], asked.get("associated_data")
            )
        except InvalidTag:
            raise Refusal(400, "cipher: message authentication failed") from None
        return _data(plaintext=base64.b64encode(plaintext).decode())

    def _cipher(self, key: Key, version: int, asked: dict[str, bytes]) -> AESGCM:
        secret = key.versions[version - 1]
        if key.derived:
            secret = hashlib.sha256(secret + asked["context"]).digest()
        return AESGCM(secret)


def _data(**data: object) -> bytes:
    return json.dumps({"data": data}).encode()


class _Faulty(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    vault: TransitDouble

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = 60
    wbufsize = 65536  # an answer in one packet: in two, the second waits for an acknowledgement

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            self._send(Answer(body=self.server.vault.answer(self.path, body)))
        except (Refusal, _Faulty) as told:
            self._send(told.answer)

    do_GET = do_POST = do_PUT = do_any  # noqa: N815 - http.server's names

    def _send(self, answer: Answer) -> None:
        if answer.hang_up:
            self.close_connection = True
            return
        body = answer.as_bytes()
        self.send_response(answer.status)
        for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""
