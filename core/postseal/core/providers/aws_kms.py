"""Wrapping keys in AWS KMS: they never leave it, its key policies say who may wrap and unwrap, CloudTrail records who did.

Two messages of one policy to one destination share an encryption context, and whoever may use the key under another context may not
open them: `docs/keys.md` has the IAM policies that make use of that.

Source: SPEC.md 6.2 and 6.3; AWS KMS API: GenerateDataKey, Encrypt, Decrypt, DescribeKey.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from postseal.core.errors import ConfigError, KeyBroken, KeyRefused, KeyUnavailable, NotMine
from postseal.core.findings import Finding
from postseal.core.forking import ForkSafeLock
from postseal.core.keys import KeyContext, NewDataKey, Recipient
from postseal.core.providers._attempts import first_that_opens
from postseal.core.providers._aws_calls import ARN, ERRORS, Kms, hide_from_logs, in_region
from postseal.core.providers._aws_states import WRAPS, examined

if TYPE_CHECKING:
    from mypy_boto3_kms.client import KMSClient

__all__ = ["ALGORITHM", "ERRORS", "AwsKms", "key_id_of"]

ALGORITHM: Final = -65537
_DATA_KEY_SIZE: Final = 32
_KEY_ID_SIZE: Final = 8
_MOST_DIRECT: Final = 4096
"""Bytes of plaintext. Source: AWS KMS API, Encrypt."""
_ALIAS_ARN: Final = re.compile(r"arn:[^:\s]+:kms:(?P<region>[^:\s]+):[^:\s]+:alias/[\w/-]+")
_BARE: Final = re.compile(r"alias/[\w/-]+|[\w-]+")


def key_id_of(arn: str) -> bytes:
    """Return the kid of envelopes for the key of that ARN; all Regions' replicas of a multi-Region key have one. Source: SPEC.md 6.3."""
    match = ARN.fullmatch(arn)
    if match is None:
        raise ConfigError(f"not the ARN of a KMS key: {arn!r}")
    if match["id"].startswith("mrk-"):
        arn = in_region(match, "")
    return sha256(arn.encode()).digest()[:_KEY_ID_SIZE]


class AwsKms:
    """Key provider on a key of AWS KMS.

    Args:
        client: ``boto3.client("kms", ...)``, made by the caller: credentials, timeouts, retries and endpoint are its own. Give it short
            timeouts: messages wait for it. A forked child should have a client of its own, because botocore's connections are not for
            sharing. Its debug log shows requests and answers; those that hold a data key are hidden from it, from now on.
        key_id: The symmetric key that wraps, best by its ARN. An alias, a bare key id or the ARN of an alias is asked for once, at first
            use, which takes the right ``kms:DescribeKey``; where the alias leads later is not noticed.
        also_open: ARNs of further keys that may unwrap: rotated-out ones, say. They are not used to wrap.

    A multi-Region key may be named by the ARN of any of its replicas: the one in the client's own Region is asked.

    Raises:
        ConfigError: No such name can be of a KMS key, or the key is in another Region than the client.
    """

    def __init__(self, client: KMSClient, key_id: str, *, also_open: Iterable[str] = ()) -> None:
        if isinstance(also_open, str):
            raise ConfigError(f"also_open must be a list of ARNs, not one text: [{also_open!r}]")
        self._kms = Kms(client)
        self._region = client.meta.region_name
        self._name = self._checked(key_id, "key_id")
        self._arn = self._name if ARN.fullmatch(self._name) else ""
        self._also: dict[bytes, str] = {}
        for arn in also_open:
            if ARN.fullmatch(arn) is None:
                raise ConfigError(f"also_open needs ARNs of keys (arn:aws:kms:...:key/...), not {arn!r}")
            self._also[key_id_of(arn)] = self._checked(arn, "also_open")
        self._lock = ForkSafeLock()
        hide_from_logs(client)

    def __repr__(self) -> str:
        return f"<AwsKms {self._name}>"

    def examine(self, *, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
        """Ask AWS KMS about the key that wraps and those that may open: one or two calls each."""
        yield from examined(self._kms, self._name, clock(), kind=WRAPS)
        for arn in self._also.values():
            yield from examined(self._kms, arn, clock())

    def generate(self, context: KeyContext) -> NewDataKey:
        """Have AWS KMS make a data key: one call of GenerateDataKey."""
        arn = self._resolve()
        answer = self._kms.call(
            "GenerateDataKey",
            arn,
            KeyId=arn,
            NumberOfBytes=_DATA_KEY_SIZE,
            EncryptionContext=context.as_dict(),
        )
        if answer.get("KeyId") != arn:
            raise KeyRefused(f"AWS KMS GenerateDataKey answered for another key than {arn}")
        data_key = answer.get("Plaintext", b"")
        if len(data_key) != _DATA_KEY_SIZE:
            raise KeyRefused(
                f"AWS KMS GenerateDataKey answered with {len(data_key)} bytes, not {_DATA_KEY_SIZE}"
            )
        return NewDataKey(data_key, self._recipients("GenerateDataKey", arn, answer))

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        """Have AWS KMS wrap *data_key*: one call of Encrypt."""
        try:
            arn = self._resolve()
            answer = self._kms.call(
                "Encrypt", arn, KeyId=arn, Plaintext=data_key, EncryptionContext=context.as_dict()
            )
        finally:
            del data_key  # a traceback shows the locals of its frames to whoever asks
        return self._recipients("Encrypt", arn, answer)

    def unwrap(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:
        """Have AWS KMS unwrap the recipient that names our key: one call of Decrypt, or one for each of our keys that is named.

        Raises:
            NotMine: None names a key of ours, or the key that it names is not the one that wrapped it.
        """
        return first_that_opens(
            (partial(self._unwrap, arn, recipient, context) for arn, recipient in self._ours(recipients)),
            f"no recipient is of {self._name}",
        )

    @property
    def most_direct(self) -> int:
        """4,096 bytes."""
        return _MOST_DIRECT

    @property
    def anybody_encrypts(self) -> bool:
        """No: that takes the right ``kms:Encrypt``."""
        return False

    def encrypt(self, plaintext: bytes, context: KeyContext) -> Recipient:
        """Have AWS KMS encrypt *plaintext*: one call of Encrypt."""
        return self.wrap(plaintext, context)[0]

    def decrypt(self, recipient: Recipient, context: KeyContext) -> bytes:
        """Have AWS KMS undo that: one call of Decrypt."""
        for arn, ours in self._ours((recipient,)):
            try:
                return self._decrypted(arn, ours, context)
            except NotMine as error:
                raise KeyBroken(str(error)) from error
        raise NotMine(f"it was not encrypted by {self._name}")

    def _unwrap(self, arn: str, recipient: Recipient, context: KeyContext) -> bytes:
        data_key = self._decrypted(arn, recipient, context)
        size = len(data_key)
        if size == _DATA_KEY_SIZE:
            return data_key
        del data_key
        # Whoever may Encrypt can wrap what is no data key.
        raise KeyBroken(f"a wrapped key of {size} bytes, where a data key has {_DATA_KEY_SIZE}")

    def _decrypted(self, arn: str, recipient: Recipient, context: KeyContext) -> bytes:
        answer = self._kms.call(
            "Decrypt",
            arn,
            KeyId=arn,
            CiphertextBlob=recipient.wrapped_key,
            EncryptionContext=context.as_dict(),
        )
        if not answer.get("KeyId") or not answer.get("Plaintext"):
            # A body that was cut, or from something in between: it says nothing about the message. Nobody can Encrypt no bytes.
            raise KeyUnavailable(f"AWS KMS Decrypt on {arn}: half an answer")
        plaintext: bytes = answer.pop("Plaintext")
        if answer.get("KeyId") == arn:
            return plaintext
        del plaintext
        # AWS KMS itself sees to that since KeyId is named; what stands in for it in tests may not.
        raise NotMine(f"the wrapped key was unwrapped by another key than {arn}")

    def _ours(self, recipients: Sequence[Recipient]) -> list[tuple[str, Recipient]]:
        """Pair each recipient that names one of our keys with its ARN, in the order in which they came."""
        named = {recipient.key_id: recipient for recipient in recipients if recipient.algorithm == ALGORITHM}
        if not named:
            return []
        try:
            ours = {key_id_of(arn := self._resolve()): arn}
        except KeyRefused as error:
            # That says nothing about the message: without our own ARN nobody can tell whose it is.
            raise KeyUnavailable(str(error)) from error
        ours.update(self._also)
        return [(ours[key_id], recipient) for key_id, recipient in named.items() if key_id in ours]

    def _recipients(self, operation: str, arn: str, answer: Mapping[str, Any]) -> tuple[Recipient, ...]:
        wrapped = answer.get("CiphertextBlob")
        if not wrapped:
            raise KeyRefused(f"AWS KMS {operation} answered without a wrapped key for {arn}")
        return (Recipient(ALGORITHM, key_id_of(arn), wrapped),)

    # -- names -----------------------------------------------------------------------------------------------------

    def _checked(self, name: str, option: str) -> str:
        """Return *name* as it is called in the client's Region."""
        key = ARN.fullmatch(name)
        if key is not None and key["id"].startswith("mrk-"):
            return in_region(key, self._region)
        named = key or _ALIAS_ARN.fullmatch(name)
        if named is None and _BARE.fullmatch(name) is None:
            raise ConfigError(f"{option} is neither an ARN, an alias nor an id of a KMS key: {name!r}")
        if named is not None and named["region"] != self._region:
            raise ConfigError(
                f"{option} is in {named['region']}, but the client is of {self._region}: {name!r}; "
                "give each Region an AwsKms with a client of its own, and combine them"
            )
        return name

    def _resolve(self) -> str:
        """Return the ARN of the key that wraps, asking for it the first time where it is not known."""
        with self._lock:
            self._arn = self._arn or self._ask_for_arn()
            return self._arn

    def _ask_for_arn(self) -> str:
        advice = "; it is asked once, as key_id is no ARN of a key: name the key by its ARN, or allow it"
        answer = self._kms.call("DescribeKey", self._name, advice, KeyId=self._name)
        arn: str = answer.get("KeyMetadata", {}).get("Arn", "")
        if ARN.fullmatch(arn) is None:
            raise KeyUnavailable(f"AWS KMS DescribeKey answered without an ARN for {self._name}")
        return arn
