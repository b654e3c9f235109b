"""A double of Azure Key Vault: real cryptography over real TLS, for the real SDK, and with the faults that no emulator makes.

In a test it runs in a thread; ``python -m tests.core.key_vault PORT CERTIFICATE`` runs it as a server of its own, for integration/.

Source: Azure Key Vault REST API 7.4 to 2025-07-01: keys, and how it answers what it refuses.
"""

from __future__ import annotations

import base64
import datetime as dt
import functools
import ipaddress
import itertools
import json
import os
import ssl
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, Self

from azure.core.credentials import AccessToken
from azure.keyvault.keys import KeyClient
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)

_OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
_CURVES: dict[str, ec.EllipticCurve] = {
    "P-256": ec.SECP256R1(),
    "P-256K": ec.SECP256K1(),
    "P-384": ec.SECP384R1(),
}
_OPERATIONS = ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"]


class AnyCredential:
    """Gives tokens without asking anybody."""

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        return AccessToken("a token of tests", int(time.time()) + 3600)


class AnyAsyncCredential:
    """The same for asyncio clients."""

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        return AccessToken("a token of tests", int(time.time()) + 3600)

    async def close(self) -> None: ...


@dataclass
class Answer:
    """What the next request is answered with, whatever it asks."""

    status: int = 200
    code: str = ""
    inner: str = ""
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    """Not answer before `released`, and then hang up."""
    hang_up: bool = False
    """Close the connection instead."""
    released: threading.Event = field(default_factory=threading.Event)

    def as_bytes(self) -> bytes:
        if self.body is not None:
            return self.body
        error: dict[str, Any] = {"code": self.code, "message": "the service's own words"}
        if self.inner:
            error["innererror"] = {"code": self.inner}
        return json.dumps({"error": error}).encode()


class Request(NamedTuple):
    """What was asked."""

    operation: str
    path: str
    query: str


class Refusal(Exception):
    """Ends a request with an error."""

    def __init__(self, status: int, code: str, inner: str = "") -> None:
        super().__init__(code)
        self.answer = Answer(status, code, inner)


_made = itertools.count()


@functools.cache
def _rsa_key(size: int, number: int) -> rsa.RSAPrivateKey:
    """Make one of a few keys: making one takes longer than most tests, and no test has more than a few."""
    return rsa.generate_private_key(65537, size)


class Version:
    """One version of a key."""

    def __init__(
        self,
        kind: str,
        size: int | None,
        attributes: dict[str, Any],
        operations: list[str],
        curve: str = "P-256",
    ) -> None:
        self.name = uuid.uuid4().hex
        self.kind = kind
        self.size = size
        self.curve = curve
        self.operations = operations
        self.attributes = {"enabled": True, **attributes}
        self.secret: Any
        if kind.startswith("oct"):
            self.secret = os.urandom((size or 256) // 8)
        elif kind.startswith("EC"):
            self.secret = ec.generate_private_key(_CURVES[curve])
        else:
            self.secret = _rsa_key(size or 2048, next(_made) % 8)

    def public(self) -> dict[str, str]:
        if isinstance(self.secret, rsa.RSAPrivateKey):
            numbers = self.secret.public_key().public_numbers()
            return {"n": _int(numbers.n), "e": _int(numbers.e)}
        if isinstance(self.secret, ec.EllipticCurvePrivateKey):
            point = self.secret.public_key().public_numbers()
            size = (self.secret.key_size + 7) // 8
            return {
                "crv": self.curve,
                "x": _text(point.x.to_bytes(size, "big")),
                "y": _text(point.y.to_bytes(size, "big")),
            }
        return {}

    def sign(self, algorithm: str, digest: bytes) -> bytes:
        if (
            algorithm != "ES256"
            or self.curve != "P-256"
            or len(digest) != 32
            or not isinstance(self.secret, ec.EllipticCurvePrivateKey)
        ):
            raise Refusal(400, "BadParameter")
        r, s = decode_dss_signature(self.secret.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def verify(self, algorithm: str, digest: bytes, signature: bytes) -> bool:
        if algorithm != "ES256" or len(signature) != 64:
            raise Refusal(400, "BadParameter")
        der = encode_dss_signature(
            int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        )
        try:
            self.secret.public_key().verify(der, digest, ec.ECDSA(Prehashed(hashes.SHA256())))
        except InvalidSignature:
            return False
        return True

    def wrap(self, algorithm: str, key: bytes) -> bytes:
        if algorithm == "RSA-OAEP-256" and isinstance(self.secret, rsa.RSAPrivateKey):
            return self.secret.public_key().encrypt(key, _OAEP)
        if algorithm == "A256KW" and isinstance(self.secret, bytes):
            return keywrap.aes_key_wrap(self.secret, key)
        raise Refusal(400, "BadParameter")

    def unwrap(self, algorithm: str, wrapped: bytes) -> bytes:
        try:
            if algorithm == "RSA-OAEP-256" and isinstance(self.secret, rsa.RSAPrivateKey):
                return self.secret.decrypt(wrapped, _OAEP)
            if algorithm == "A256KW" and isinstance(self.secret, bytes):
                return keywrap.aes_key_unwrap(self.secret, wrapped)
        except (ValueError, keywrap.InvalidUnwrap):
            pass
        raise Refusal(400, "BadParameter")


def environment_of(url: str, certificate: str) -> dict[str, str]:
    """Return the variables by which a process finds its identity and its authorities here, without an option.

    Source: Azure App Service, REST endpoint of a managed identity.
    """
    return {
        "IDENTITY_ENDPOINT": f"{url}/identity",
        "IDENTITY_HEADER": "of tests",
        "REQUESTS_CA_BUNDLE": certificate,
    }


class KeyVaultDouble:
    """A vault at `url`. Its certificate is `certificate`, for ``connection_verify``.

    Attributes:
        asked: How often each operation was asked, by somebody with a token: ``get``, ``wrapkey``, ``unwrapkey`` ...
        requests: The same, in order.
        answers: What the next requests are answered with.
        denied: Operations for which nobody has a right.
        away: Whether every request is answered with 503.
    """

    def __init__(self, port: int = 0, certificate: Path | None = None) -> None:
        self.keys: dict[str, list[Version]] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.deleted: dict[str, list[Version]] = {}
        self.asked: Counter[str] = Counter()
        self.requests: list[Request] = []
        self.answers: deque[Answer] = deque()
        self.denied: set[str] = set()
        self.away = False
        self.released = threading.Event()
        self._lock = threading.Lock()
        self._own = tempfile.TemporaryDirectory(prefix="postseal-key-vault-")
        self.certificate = str(certificate or Path(self._own.name) / "ca.pem")
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.vault = self
        key = Path(self._own.name) / "key.pem"
        _write_certificate(Path(self.certificate), key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        # The handshake belongs to the connection's own thread.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._own.cleanup()

    def begin_again(self) -> None:
        """Be as if nobody had asked anything, but for the keys."""
        self.asked.clear()
        self.requests.clear()
        self.answers.clear()
        self.denied.clear()
        self.away = False

    def serve(self) -> None:
        self._server.serve_forever()

    @property
    def options(self) -> dict[str, Any]:
        """What a client needs to find its way here."""
        return {
            "connection_verify": self.certificate,
            "verify_challenge_resource": False,
            "retry_total": 0,
            "connection_timeout": 5,
            "read_timeout": 20,
        }

    def client(self, **options: Any) -> KeyClient:
        return KeyClient(self.url, AnyCredential(), **{**self.options, **options})

    @property
    def challenge(self) -> str:
        """What who has no token is told. A client that compares the names finds its own one below this one."""
        resource = self.url.replace("https://127.", "https://")
        return f'Bearer authorization="https://login.example/tenant", resource="{resource}"'

    @property
    def environment(self) -> dict[str, str]:
        """As `environment_of`."""
        return environment_of(self.url, self.certificate)

    def put_secret(self, name: str, value: str) -> str:
        """Keep a new version of a secret; return its identifier."""
        version = uuid.uuid4().hex
        self.secrets.setdefault(name, {})[version] = value
        return f"{self.url}/secrets/{name}/{version}"

    def token(self) -> bytes:
        """Give a token, as the endpoint of a managed identity does."""
        self.asked["token"] += 1
        ends = str(int(time.time()) + 3600)
        told = {
            "access_token": "a token of tests",
            "expires_on": ends,
            "token_type": "Bearer",
            "resource": "any",
        }
        return json.dumps(told).encode()

    # -- what it is asked --------------------------------------------------------------------------------------------

    def answer(self, method: str, address: str, body: bytes) -> bytes:
        path, _, query = address.partition("?")
        parts = [part for part in path.split("/") if part]
        if len(parts) < 2:
            raise Refusal(404, "NotFound")
        operation = _operation(method, parts)
        with self._lock:
            self.asked[operation] += 1
            self.requests.append(Request(operation, path, query))
            fault = Answer(503) if self.away else self.answers.popleft() if self.answers else None
        if fault is not None:
            raise _Faulty(fault)
        if operation in self.denied:
            raise Refusal(403, "Forbidden", "ForbiddenByRbac")
        with self._lock:
            return json.dumps(self._answer(operation, parts, json.loads(body or b"{}"))).encode()

    def _answer(self, operation: str, parts: list[str], body: dict[str, Any]) -> dict[str, Any]:
        name = parts[1].lower()
        if parts[0] == "secrets":
            return self._secret(operation, name, parts[2:], body)
        if operation == "create":
            return self._create(name, body)
        if operation == "delete" and name in self.keys:
            self.deleted[name] = self.keys.pop(name)
        if operation in ("delete", "getdeleted") and name in self.deleted:
            return self._deleted(name)
        if name not in self.keys:
            raise Refusal(404, "KeyNotFound")
        versions = self.keys[name]
        if operation == "rotate":
            last = versions[-1]
            versions.append(Version(last.kind, last.size, {}, last.operations, last.curve))
        asked = parts[2] if len(parts) > 2 and operation != "rotate" else versions[-1].name
        version = next((version for version in versions if version.name == asked.lower()), None)
        if version is None:
            raise Refusal(404, "KeyNotFound")
        if operation in ("wrapkey", "unwrapkey", "decrypt", "sign", "verify"):
            return self._use(operation, name, version, body)
        if operation == "update":
            version.attributes.update(body.get("attributes", {}))
        return self._bundle(name, version)

    def _secret(self, operation: str, name: str, version: list[str], body: dict[str, Any]) -> dict[str, Any]:
        if operation == "set":
            self.put_secret(name, body["value"])
        versions = self.secrets.get(name, {})
        asked = version[0] if version else next(reversed(versions), "")
        if asked not in versions:
            raise Refusal(404, "SecretNotFound")
        return {
            "id": f"{self.url}/secrets/{name}/{asked}",
            "value": versions[asked],
            "attributes": {"enabled": True},
        }

    def _create(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        operations = body.get("key_ops", _OPERATIONS)
        made = Version(
            body.get("kty", "RSA"),
            body.get("key_size"),
            body.get("attributes", {}),
            operations,
            body.get("crv", "P-256"),
        )
        self.keys.setdefault(name, []).append(made)
        return self._bundle(name, made)

    def _use(self, operation: str, name: str, version: Version, body: dict[str, Any]) -> dict[str, Any]:
        if not version.attributes["enabled"]:
            raise Refusal(403, "Forbidden", "KeyDisabled")
        try:
            value = _bytes(body["value"])
        except (KeyError, ValueError):
            raise Refusal(400, "BadParameter") from None
        algorithm, kid = body.get("alg", ""), f"{self.url}/keys/{name}/{version.name}"
        if operation == "verify":
            return {"value": version.verify(algorithm, _bytes(body["digest"]), value)}
        if operation == "sign" and time.time() >= version.attributes.get("exp", inf):
            raise Refusal(403, "Forbidden", "KeyExpired")
        use = {
            "wrapkey": version.wrap,
            "unwrapkey": version.unwrap,
            "decrypt": version.unwrap,
            "sign": version.sign,
        }[operation]
        return {"kid": kid, "value": _text(use(algorithm, value))}

    def _bundle(self, name: str, version: Version) -> dict[str, Any]:
        kid = f"{self.url}/keys/{name}/{version.name}"
        key = {"kid": kid, "kty": version.kind, "key_ops": version.operations, **version.public()}
        return {"key": key, "attributes": version.attributes}

    def _deleted(self, name: str) -> dict[str, Any]:
        now = int(time.time())
        bundle = self._bundle(name, self.deleted[name][-1])
        return {
            **bundle,
            "recoveryId": f"{self.url}/deletedkeys/{name}",
            "deletedDate": now,
            "scheduledPurgeDate": now,
        }


def _operation(method: str, parts: list[str]) -> str:
    if parts[0] == "deletedkeys":
        return "getdeleted"
    last = parts[-1].lower()
    if method == "POST" and last in ("create", "rotate", "wrapkey", "unwrapkey", "decrypt", "sign", "verify"):
        return last
    return {"GET": "get", "PUT": "set", "PATCH": "update", "DELETE": "delete"}.get(method, "unknown")


class _Faulty(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.code)
        self.answer = answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    vault: KeyVaultDouble

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = 60
    wbufsize = 65536  # an answer in one packet: in two, the second waits for an acknowledgement

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/identity?") and self.headers.get("X-IDENTITY-HEADER"):
            self._send(Answer(body=self.server.vault.token()))
            return
        if not self.headers.get("Authorization"):
            self._send(Answer(401, "Unauthorized", headers={"WWW-Authenticate": self.server.vault.challenge}))
            return
        try:
            self._send(Answer(body=self.server.vault.answer(self.command, self.path, body)))
        except (Refusal, _Faulty) as told:
            self._send(told.answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_any  # noqa: N815 - http.server's names

    def _send(self, answer: Answer) -> None:
        while answer.hang and not (answer.released.wait(0.05) or self.server.vault.released.is_set()):
            pass
        if answer.hang or answer.hang_up:
            self.close_connection = True
            return
        body = answer.as_bytes()
        self.send_response(answer.status)
        headers = {
            "Content-Type": "application/json",
            "x-ms-request-id": "request-of-tests",
            **answer.headers,
        }
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


def _write_certificate(certificate: Path, key_file: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "postseal tests")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=7))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key_file.touch(0o600)
    key_file.write_bytes(private)
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _bytes(value: str) -> bytes:
    return base64.urlsafe_b64decode(value + "==")


def _int(value: int) -> str:
    return _text(value.to_bytes((value.bit_length() + 7) // 8, "big"))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        KeyVaultDouble(int(sys.argv[1]), Path(sys.argv[2])).serve()
