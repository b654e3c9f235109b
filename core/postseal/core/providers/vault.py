"""Wrapping keys in the transit engine of HashiCorp Vault or OpenBao: they never leave it, its policies say who may wrap and unwrap.

Policy and destination are the associated data of what transit encrypts, so the vault itself opens nothing under another context, and its
policies can name the contexts that a token may use: `docs/keys.md` has them.

Source: SPEC.md 6.2 and 6.3; Vault HTTP API, transit: Encrypt Data, Decrypt Data.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from postseal.core import crypto
from postseal.core.context import check_name, head, text
from postseal.core.crypto import DATA_KEY_SIZE, RandomBytes
from postseal.core.errors import (
    ConfigError,
    KeyBroken,
    KeyRefused,
    KeyUnavailable,
    MissingExtraError,
    NotMine,
    PostsealError,
)
from postseal.core.findings import Finding
from postseal.core.keys import KeyContext, NewDataKey, Recipient
from postseal.core.providers._attempts import first_that_opens
from postseal.core.providers._binding import canonical
from postseal.core.wire import MAX_WRAPPED

try:
    from hvac import exceptions
except ImportError as missing:
    raise MissingExtraError.naming("vault", __name__, missing) from missing

from postseal.core.providers._vault_states import examined, server_examined

if TYPE_CHECKING:
    import hvac

__all__ = ["ALGORITHM", "ERRORS", "VaultTransit", "key_id_of"]

ALGORITHM: Final = -65539
_DOMAIN: Final = "postseal v1 vault"
_KEY_ID_SIZE: Final = 8
_VERSION_SIZE: Final = 4
_NAME: Final = re.compile(r"\w(?:[\w.-]*\w)?", re.ASCII)
_PATH: Final = re.compile(r"[\w.-]+(?:/[\w.-]+)*", re.ASCII)
_CIPHERTEXT: Final = re.compile(r"vault:v(?P<version>[1-9]\d{0,8}):(?P<bytes>[A-Za-z0-9+/]+={0,2})")
# A nonce of 12 or 24 bytes, the data key and a tag of 16; managed keys may add some.
_WRAPPED_SIZES: Final = range(_VERSION_SIZE + 12 + DATA_KEY_SIZE + 16, 1024)
_MOST_DIRECT: Final = 4096
"""Bytes, as with AWS KMS, so that a policy may go from one to the other; the vault itself would take more."""
_DIRECT_SIZES: Final = range(_VERSION_SIZE + 12 + 16, MAX_WRAPPED + 1)

# As for AWS KMS: refused is what is about the key or a right to it; what is about this process, about load, or not known is unavailable.
ERRORS: Final[Mapping[type[Exception], type[PostsealError]]] = MappingProxyType(
    {
        exceptions.InvalidRequest: KeyRefused,  # but see _why_not
        exceptions.Forbidden: KeyRefused,  # but see _token_is_good
        exceptions.InvalidPath: KeyRefused,
        exceptions.UnsupportedOperation: KeyRefused,
        exceptions.ParamValidationError: KeyRefused,
        exceptions.Unauthorized: KeyUnavailable,
        exceptions.PreconditionFailed: KeyUnavailable,
        exceptions.RateLimitExceeded: KeyUnavailable,
        exceptions.InternalServerError: KeyUnavailable,
        exceptions.VaultNotInitialized: KeyUnavailable,
        exceptions.VaultDown: KeyUnavailable,
        exceptions.BadGateway: KeyUnavailable,
        exceptions.UnexpectedError: KeyUnavailable,
    }
)
"""By the class of an error of hvac: what it means for whoever asked. What is not here is `KeyUnavailable`."""

# A vault has no codes, only words, and says 400 to a broken ciphertext as to a key that is gone. These words are about the key.
_WORDS: Final = (
    (re.compile(r"key not found"), "the key is not there"),
    (re.compile(r"too old"), "its version is under min_decryption_version"),
    (re.compile(r"missing 'context'"), "the key is a derived one: VaultTransit(..., derived=True)"),
    (re.compile(r"non-AEAD"), "the key takes no associated data: make one of type aes256-gcm96"),
    (re.compile(r"unsupported|not support"), "the key is of a wrong type"),
)
# Older vaults say 400 to a request without a token: a client that is just logging in again.
_NO_TOKEN: Final = re.compile(r"missing client token")


def key_id_of(name: str, *, mount_point: str = "transit", namespace: str = "", cluster: str = "") -> bytes:
    """Return the kid of envelopes for a transit key. Source: SPEC.md 6.3."""
    parts = (_DOMAIN, cluster, namespace.strip("/"), mount_point.strip("/"), name)
    return crypto.sha256(head(4, len(parts)) + b"".join(map(text, parts)))[:_KEY_ID_SIZE]


class VaultTransit:
    """Key provider on a key of the transit engine.

    Args:
        client: ``hvac.Client``, made by the caller: address, token and its renewal, namespace, timeout, certificates are its own. Give it
            a short timeout: messages wait for it. A forked child should have one of its own, because its connections are not for sharing.
        key: The name of the key that wraps: symmetric, of an AEAD type (``aes256-gcm96``, the default, ``chacha20-poly1305`` ...).
        mount_point: Where the transit engine is mounted.
        derived: Whether the key was made with ``derived=true``: then the vault also derives a key for each context.
        also_open: Names of further keys there that may unwrap. They are not used to wrap.
        cluster: A name of your own for this cluster, the same in producers and consumers; needed only where one message is wrapped by
            two clusters whose mounts and keys have the same names.

    Raises:
        ConfigError: No key, mount or cluster can have that name, or the client is none.
    """

    def __init__(
        self,
        client: hvac.Client,
        key: str,
        *,
        mount_point: str = "transit",
        derived: bool = False,
        also_open: Iterable[str] = (),
        cluster: str = "",
        random: RandomBytes = crypto.random_bytes,
    ) -> None:
        if isinstance(also_open, str):
            raise ConfigError(f"also_open must be a list of names of keys, not one text: [{also_open!r}]")
        if not hasattr(getattr(client, "secrets", None), "transit") or not hasattr(client, "adapter"):
            raise ConfigError(f"client must be an hvac.Client, not {type(client).__name__}")
        self._mount = mount_point.strip("/")
        if _PATH.fullmatch(self._mount) is None:
            raise ConfigError(f"mount_point is no path of a secrets engine: {mount_point!r}")
        self._client = client
        self._derived = derived
        self._random = random
        self._cluster = cluster and check_name(cluster, "cluster")
        self._namespace = str(client.adapter.namespace or "")
        self._name = _checked(key, "key")
        self._key_id = self._key_id_of(self._name)
        self._ours = {self._key_id_of(name): name for name in (_checked(n, "also_open") for n in also_open)}
        self._ours[self._key_id] = self._name

    def __repr__(self) -> str:
        return f"<VaultTransit {self._mount}/{self._name}>"

    def examine(self, *, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
        """Ask the vault about the key that wraps and those that may open, our token and its clock: one call each."""
        for name in dict.fromkeys((self._name, *self._ours.values())):
            yield from examined(self._client, self._mount, name, wraps=name == self._name)
        yield from server_examined(self._client, clock())

    @staticmethod
    def associated_data(context: KeyContext) -> str:
        """Return what the vault sees of *context*, in base64: the value for ``allowed_parameters`` in a vault's policy."""
        return base64.b64encode(canonical(context)).decode()

    def generate(self, context: KeyContext) -> NewDataKey:
        """Make a data key from the operating system's randomness, and have the vault wrap it.

        Not by ``transit/datakey``: a vault that does not know ``associated_data`` there would pass it over, and wrap what never opens.
        """
        data_key = self._random(DATA_KEY_SIZE)
        return NewDataKey(data_key, self.wrap(data_key, context))

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        """Have the vault wrap *data_key*: one call of ``transit/encrypt``."""
        try:
            return (self._encrypted(data_key, context, _WRAPPED_SIZES),)
        finally:
            del data_key  # a traceback shows the locals of its frames to whoever asks

    @property
    def most_direct(self) -> int:
        """4,096 bytes."""
        return _MOST_DIRECT

    @property
    def anybody_encrypts(self) -> bool:
        """No: that takes the right to ``transit/encrypt``."""
        return False

    def encrypt(self, plaintext: bytes, context: KeyContext) -> Recipient:
        """Have the vault encrypt *plaintext*: one call of ``transit/encrypt``."""
        return self._encrypted(plaintext, context, _DIRECT_SIZES)

    def decrypt(self, recipient: Recipient, context: KeyContext) -> bytes:
        """Have the vault undo that: one call of ``transit/decrypt``."""
        if recipient.algorithm != ALGORITHM or (name := self._ours.get(recipient.key_id)) is None:
            raise NotMine(f"it was not encrypted by {self._mount}/{self._name}")
        return self._decrypted(name, recipient, context, _DIRECT_SIZES)

    def _encrypted(self, secret: bytes, context: KeyContext, sizes: range) -> Recipient:
        try:
            plaintext = base64.b64encode(secret).decode()
            answer = self._call("encrypt", self._name, context, plaintext=plaintext)
        finally:
            secret = plaintext = ""  # type: ignore[assignment]  # as in `wrap`
        match = _CIPHERTEXT.fullmatch(str(answer.get("ciphertext", "")))
        if match is None:
            raise KeyRefused(f"Vault encrypt on {self._mount}/{self._name}: an answer without a wrapped key")
        wrapped = int(match["version"]).to_bytes(_VERSION_SIZE, "big") + base64.b64decode(match["bytes"])
        if len(wrapped) not in sizes:
            raise KeyRefused(
                f"Vault encrypt on {self._mount}/{self._name}: an answer of {len(wrapped)} bytes"
            )
        return Recipient(ALGORITHM, self._key_id, wrapped)

    def unwrap(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:
        """Have the vault unwrap the recipient that names our key: one call of ``transit/decrypt``, or one for each of our keys.

        Raises:
            NotMine: None names a key of ours.
        """
        return first_that_opens(
            (
                partial(self._unwrap, self._ours[recipient.key_id], recipient, context)
                for recipient in recipients
                if recipient.algorithm == ALGORITHM and recipient.key_id in self._ours
            ),
            f"no recipient is of {self._mount}/{self._name}",
        )

    def _unwrap(self, name: str, recipient: Recipient, context: KeyContext) -> bytes:
        data_key = self._decrypted(name, recipient, context, _WRAPPED_SIZES)
        size = len(data_key)
        if size == DATA_KEY_SIZE:
            return data_key
        del data_key
        # Whoever may encrypt can wrap what is no data key.
        raise KeyBroken(f"a wrapped key of {size} bytes, where a data key has {DATA_KEY_SIZE}")

    def _decrypted(self, name: str, recipient: Recipient, context: KeyContext, sizes: range) -> bytes:
        version = int.from_bytes(recipient.wrapped_key[:_VERSION_SIZE], "big")
        # A vault takes version 0 for 1: one wrapped key is not to have two forms.
        if len(recipient.wrapped_key) not in sizes or not version:
            raise KeyBroken(f"{len(recipient.wrapped_key)} bytes are no wrapped key of a transit engine")
        wrapped = base64.b64encode(recipient.wrapped_key[_VERSION_SIZE:]).decode()
        answer = self._call("decrypt", name, context, ciphertext=f"vault:v{version}:{wrapped}")
        try:
            return base64.b64decode(answer.pop("plaintext", None), validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise KeyUnavailable(f"Vault decrypt on {self._mount}/{name}: half an answer") from None

    def _key_id_of(self, name: str) -> bytes:
        return key_id_of(name, mount_point=self._mount, namespace=self._namespace, cluster=self._cluster)

    # -- calls -----------------------------------------------------------------------------------------------------

    def _call(self, operation: str, name: str, context: KeyContext, **request: str) -> dict[str, Any]:
        """Ask the transit engine; *context* goes along as associated data."""
        what = f"Vault {operation} on {self._mount}/{name}"
        request["associated_data"] = self.associated_data(context)
        if self._derived:
            request["context"] = request["associated_data"]
        transit = self._client.secrets.transit
        method = transit.encrypt_data if operation == "encrypt" else transit.decrypt_data
        failure: PostsealError
        try:
            answer = method(name, mount_point=self._mount, **request)
        except Exception as error:  # noqa: BLE001 - whatever ended the call, it had no answer; see ERRORS
            failure = self._mapped(error, what, operation)
            # The frames of the client hold the request; what `requests` raises holds it itself, and with encrypt the data key.
            if operation == "decrypt" or isinstance(error, exceptions.VaultError):
                failure.__cause__ = error.with_traceback(None)
        else:
            data = answer.get("data") if isinstance(answer, dict) else None
            if isinstance(data, dict):
                return data
            failure = KeyUnavailable(f"{what}: an answer that is none")
        finally:
            request.clear()
        raise failure

    def _mapped(self, error: Exception, what: str, operation: str) -> PostsealError:
        """Say what *error* means. The vault's own text stays out of it: it may quote the request."""
        kind = ERRORS.get(type(error), KeyUnavailable)
        name = type(error).__name__
        if not isinstance(error, exceptions.VaultError):
            return KeyUnavailable(f"{what}: no answer ({name})")
        errors = _told_by(error)
        if errors is None:
            return KeyUnavailable(
                f"{what}: {name}, and not in the words of a vault: from something in between"
            )
        if isinstance(error, exceptions.InvalidRequest):
            return _bad_request(" ".join(map(str, errors)), what, operation)
        if isinstance(error, exceptions.Forbidden):
            if not self._token_is_good():
                return KeyUnavailable(f"{what}: the token of the client has expired or was revoked")
            return KeyRefused(f"{what}: the token has no right to update {self._mount}/{operation}")
        return kind(f"{what}: {name}")

    def _token_is_good(self) -> bool:
        """Ask the vault about our token: it says *permission denied* to one that has expired as to one that has no right."""
        try:
            self._client.auth.token.lookup_self()
        except Exception:  # noqa: BLE001 - whatever it is, nobody has said that the right is missing
            return False
        return True


def _bad_request(words: str, what: str, operation: str) -> PostsealError:
    """Say what a 400 means, by the vault's *words*."""
    if _NO_TOKEN.search(words):
        return KeyUnavailable(f"{what}: the client has no token")
    told = next((told for pattern, told in _WORDS if pattern.search(words)), "")
    if not told and operation == "decrypt":
        return KeyBroken(f"{what}: the wrapped key was changed, or is of another context or key")
    return KeyRefused(f"{what}: {told or 'InvalidRequest'}")


def _told_by(error: exceptions.VaultError) -> list[Any] | None:
    """Return the list of errors that a vault answers with; None where it was no vault that answered, but a proxy before it."""
    told = error.errors
    if told is None:  # hvac looks for it under one spelling of the content type
        try:
            told = json.loads(str(error.text)).get("errors")
        except (ValueError, AttributeError):
            return None
    return told if isinstance(told, list) else None


def _checked(key: str, option: str) -> str:
    if _NAME.fullmatch(key) is None:
        raise ConfigError(f"{option} is no name of a transit key: {key!r}")
    return key
