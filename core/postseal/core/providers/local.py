"""Wrapping keys in a file: for development and tests, never for production.

Whoever reads the file opens every message, nobody can withdraw a right, and nothing records who used the key. It behaves like a key
service in all else: it keeps the encryption context, and finds tampering.

Source: SPEC.md 6.3.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import tomllib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from postseal.core import crypto
from postseal.core.context import check_name, head, text
from postseal.core.crypto import DATA_KEY_SIZE, InvalidTag, RandomBytes
from postseal.core.errors import ConfigError
from postseal.core.findings import Finding, warning
from postseal.core.keys import KeyBroken, KeyContext, NewDataKey, NotMine, Recipient
from postseal.core.wire import MAX_KEY_ID

__all__ = ["ALGORITHM", "UnsafeLocalKeys", "UnsafeLocalKeysWarning"]

ALGORITHM: Final = -65538
_DOMAIN: Final = "postseal v1 local"
_MOST_DIRECT: Final = 4096
"""Bytes, as with AWS KMS, for which it stands in."""
_log: Final = logging.getLogger("postseal.keys")


class UnsafeLocalKeysWarning(UserWarning):
    """Keys lie in a file of this machine: not for production."""


class UnsafeLocalKeys:
    """Key provider on keys that this process holds.

    Args:
        keys: Wrapping keys of 32 bytes by id. The first wraps, all unwrap.

    Raises:
        ConfigError: No key, or one of a wrong size.
    """

    def __init__(self, keys: Mapping[str, bytes], *, random: RandomBytes = crypto.random_bytes) -> None:
        self._keys: dict[bytes, bytes] = {}
        for key_id, key in keys.items():
            if len(key) != DATA_KEY_SIZE:
                raise ConfigError(f"local key {key_id!r} has {len(key)} bytes; {DATA_KEY_SIZE} are needed")
            self._keys[check_name(key_id, "a local key's id", most=MAX_KEY_ID).encode()] = bytes(key)
        if not self._keys:
            raise ConfigError("UnsafeLocalKeys needs a key")
        self._random = random
        message = "postseal keys lie in this process (UnsafeLocalKeys): for development and tests, not for production"
        warnings.warn(message, UnsafeLocalKeysWarning, stacklevel=2)
        _log.warning(message)

    def __repr__(self) -> str:
        return f"<UnsafeLocalKeys {', '.join(key_id.decode() for key_id in self._keys)}>"

    def __reduce__(self) -> str:
        raise TypeError("a key is not for pickling")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> UnsafeLocalKeys:
        """Read the keys that `create_file` wrote.

        Raises:
            ConfigError: The file is missing, not readable as such, or open to other users.
        """
        file = Path(path)
        try:
            mode = file.stat().st_mode
            table = tomllib.loads(file.read_text("utf-8"))
            keys = {entry["id"]: base64.b64decode(entry["key"], validate=True) for entry in table["keys"]}
        except FileNotFoundError:
            raise ConfigError(
                f"no local key file at {file}; make one with UnsafeLocalKeys.create_file"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, binascii.Error) as error:
            # The text of the error may quote the file, and so a key.
            raise ConfigError(f"{file} is no local key file ({type(error).__name__})") from None
        if os.name == "posix" and mode & 0o077:
            raise ConfigError(f"{file} is open to other users: chmod 600 {file}")
        return cls(keys)

    @staticmethod
    def create_file(path: str | os.PathLike[str], key_id: str = "local-1") -> None:
        """Write a file with one new random key, readable by its owner alone.

        Raises:
            FileExistsError: There is a file; a key that is overwritten is lost with all that it sealed.
        """
        check_name(key_id, "a local key's id", most=MAX_KEY_ID)
        key = base64.b64encode(crypto.random_bytes(DATA_KEY_SIZE)).decode()
        quoted = key_id.replace("\\", "\\\\").replace('"', '\\"')
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(
                "# postseal wrapping keys. For development and tests only: NEVER for production.\n"
                f'[[keys]]\nid = "{quoted}"\nkey = "{key}"\n'
            )

    @classmethod
    def ephemeral(cls, key_id: str = "ephemeral") -> UnsafeLocalKeys:
        """Make a provider on one new random key that is gone with this process."""
        return cls({key_id: crypto.random_bytes(DATA_KEY_SIZE)})

    def examine(self) -> Iterator[Finding]:
        """Say that it is not for production."""
        yield warning(
            "its keys lie in this process: not for production", "name a key service, or a certificate"
        )

    def generate(self, context: KeyContext) -> NewDataKey:
        """Make a data key from the operating system's randomness."""
        data_key = self._random(DATA_KEY_SIZE)
        return NewDataKey(data_key, self.wrap(data_key, context))

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        """Wrap *data_key* under the first key."""
        key_id, key = next(iter(self._keys.items()))
        wrapped = crypto.encrypt_once(key, data_key, _aad(context), random=self._random)
        return (Recipient(ALGORITHM, key_id, wrapped),)

    def unwrap(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:
        """Unwrap whichever recipient is of one of the keys."""
        data_key = self._decrypted(recipients, context)
        size = len(data_key)
        if size == DATA_KEY_SIZE:
            return data_key
        del data_key
        # Whoever has the key can wrap what is no data key.
        raise KeyBroken(f"a wrapped key of {size} bytes, where a data key has {DATA_KEY_SIZE}")

    def _decrypted(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:
        for recipient in recipients:
            key = self._keys.get(recipient.key_id)
            if recipient.algorithm == ALGORITHM and key is not None:
                try:
                    return crypto.decrypt_once(key, recipient.wrapped_key, _aad(context))
                except InvalidTag:
                    raise KeyBroken("the wrapped key was changed, or is of another context") from None
        raise NotMine("no recipient is of a local key of this process")

    @property
    def most_direct(self) -> int:
        """4,096 bytes."""
        return _MOST_DIRECT

    @property
    def anybody_encrypts(self) -> bool:
        """No."""
        return False

    def encrypt(self, plaintext: bytes, context: KeyContext) -> Recipient:
        """Encrypt *plaintext* under the first key."""
        return self.wrap(plaintext, context)[0]

    def decrypt(self, recipient: Recipient, context: KeyContext) -> bytes:
        """Undo `encrypt`."""
        return self._decrypted((recipient,), context)


def _aad(context: KeyContext) -> bytes:
    return head(4, 3) + text(_DOMAIN) + text(context.policy) + text(context.destination)
