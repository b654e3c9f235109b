"""Keys of a signer with ``algorithm = "delegated"``: each has a root that delegates, here or in a cloud.

Each kind of root is one entry of `ROOTS`: the table that reads and documents it, and the function that makes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, get_args

from postseal.core.config._clients import (
    AWS,
    AZURE,
    AZURE_CREDENTIAL,
    TIMEOUTS,
    chosen,
    key_client,
    kms_arn,
    kms_client,
    of_this_process,
    versioned_key,
)
from postseal.core.config._kinds import (
    Count,
    Duration,
    Flag,
    Listed,
    Named,
    Option,
    Schema,
    Table,
    Text,
    Word,
    a_kind_of,
    shown,
)
from postseal.core.config._report import At
from postseal.core.config._signing import (
    PEM,
    SECRET,
    WHOSE,
    SigningAlgorithm,
    check_pair,
    hmac_key,
    key_table,
    life_of,
    pair_key,
)
from postseal.core.delegation import Delegate, DelegatedKey
from postseal.core.errors import ConfigError, nearest
from postseal.core.signing import AnyKey, Ed25519Key, Es256Key, SigningKey

__all__ = ["DELEGATED", "ROOTS"]

_KID: Final = re.compile(r"[0-9a-fA-F]{64}")


def _aws_es256(options: Mapping[str, Any], _sender: str | None) -> SigningKey:
    from postseal.core.providers.aws_kms_signing import AwsKmsEs256Key  # noqa: PLC0415 - loaded by who uses it

    arn, more = options["key_id"], chosen(options, "signs", "refresh", "max_stale")
    return AwsKmsEs256Key(options["id"], of_this_process(lambda: kms_client(options, arn)), arn, **more)


def _aws_hmac(options: Mapping[str, Any], _sender: str | None) -> SigningKey:
    from postseal.core.providers.aws_kms_signing import AwsKmsHmacKey  # noqa: PLC0415 - loaded by who uses it

    arn, more = options["key_id"], chosen(options, "signs", "refresh", "max_stale", "max_calls")
    return AwsKmsHmacKey(options["id"], of_this_process(lambda: kms_client(options, arn)), arn, **more)


def _azure_es256(options: Mapping[str, Any], _sender: str | None) -> SigningKey:
    from postseal.core.providers.azure_signing import AzureEs256Key  # noqa: PLC0415 - loaded by who uses it

    key, more = options["key"], chosen(options, "signs", "refresh", "max_stale")
    vault = key.partition("/keys/")[0]
    return AzureEs256Key(options["id"], of_this_process(lambda: key_client(options, vault)), key, **more)


_SIGNS: Final = Option(
    "signs", Flag(), "false for a process that only verifies, and has no right to sign.", default=True
)
_WINDOW: Final = (
    Option(
        "refresh",
        Duration(most=86_400),
        "How long a fetched public key, or an answer, holds: **the revocation window**.",
        default="5m",
    ),
    Option(
        "max_stale",
        Duration(zero=True, most=86_400),
        "How long past that it goes on while the service does not answer.",
        default="1h",
    ),
)
_ARN: Final = Option(
    "key_id",
    Text("the ARN of a KMS key", check=kms_arn),
    "ARN of the key, no alias: what was sent must go on to verify.",
    required='which key? key_id = "arn:aws:kms:REGION:ACCOUNT:key/ID"',
)


def _table(word: str, *options: Option) -> Table:
    algorithm = Option("algorithm", Word(word), "What delegates.", required="what delegates?")
    names = ("senders", "state", "lifetime", "accept_for", "delegate", "revoked", "id")
    return Table(
        algorithm,
        *options,
        what=f"a root of algorithm {word!r}",
        elsewhere=dict.fromkeys(names, "the key, beside its root"),
    )


ROOTS: Final[dict[str, SigningAlgorithm]] = {
    "hmac-sha256": SigningAlgorithm(_table("hmac-sha256", SECRET), hmac_key, binary=frozenset({"secret"})),
    "ed25519": SigningAlgorithm(_table("ed25519", *PEM), pair_key(Ed25519Key), check=check_pair),
    "es256": SigningAlgorithm(_table("es256", *PEM), pair_key(Es256Key), check=check_pair),
    "aws-kms-es256": SigningAlgorithm(
        _table("aws-kms-es256", _ARN, _SIGNS, *_WINDOW, *AWS, *TIMEOUTS), _aws_es256
    ),
    "aws-kms-hmac": SigningAlgorithm(
        _table(
            "aws-kms-hmac",
            _ARN,
            _SIGNS,
            *_WINDOW,
            Option(
                "max_calls",
                Count(1, 600_000),
                "Calls of VerifyMac in a minute, at most: forged delegations cost one each. What is beyond waits.",
                default=600,
            ),
            *AWS,
            *TIMEOUTS,
        ),
        _aws_hmac,
    ),
    "azure-key-vault-es256": SigningAlgorithm(
        _table(
            "azure-key-vault-es256",
            Option(
                "key",
                Text("https://VAULT/keys/NAME/VERSION", check=versioned_key),
                "The key with its version: https://VAULT/keys/NAME/VERSION.",
                required='which key? key = "https://VAULT.vault.azure.net/keys/NAME/VERSION"',
            ),
            _SIGNS,
            *_WINDOW,
            *AZURE_CREDENTIAL,
            *AZURE,
            *TIMEOUTS,
        ),
        _azure_es256,
    ),
}
"""By the word of ``algorithm`` of a root."""


class RootKind:
    """The root of a delegated key: its algorithm decides which options it has."""

    words = "a table: the key that delegates"

    def read(self, value: object, at: At) -> dict[str, Any] | None:
        """Return its options."""
        if not isinstance(value, dict):
            at.wrong(
                f'root must be a table, not {a_kind_of(value)}: root = {{ algorithm = "aws-kms-es256", ... }}'
            )
            return None
        word = value.get("algorithm")
        if word is None:
            at.wrong(f"root has no algorithm: what delegates? There are: {', '.join(ROOTS)}", key=True)
            return None
        if not isinstance(word, str) or word not in ROOTS:
            (at / "algorithm").wrong(f"algorithm is {shown(word)}{nearest(str(word), ROOTS)}")
            return None
        if (check := ROOTS[word].check) is not None:
            check(value, at)
        return ROOTS[word].key.read(value, at)

    def schema(self) -> Schema:
        """Return one form for each algorithm."""
        return {
            "type": "object",
            "required": ["algorithm"],
            "oneOf": [each.key.schema() for each in ROOTS.values()],
        }


def _kid(text: str) -> str:
    if _KID.fullmatch(text) is None:
        raise ConfigError(
            f"{shown(text)} is no key id of a delegation: 64 hex digits, as postseal inspect prints it"
        )
    return text.lower()


def _make(options: Mapping[str, Any], sender: str | None) -> AnyKey:
    root, senders = options["root"], options["senders"]
    made = ROOTS[root["algorithm"]].make({**root, "id": options["id"], "senders": senders}, sender)
    return DelegatedKey(
        made,  # type: ignore[arg-type] # no root is a voucher
        senders=senders,
        sender=options.get("sender", sender if sender in senders else None),
        **chosen(options, "lifetime", "accept_for", "delegate", "revoked"),
        **life_of(options),
    )


def _check(given: Mapping[str, Any], at: At) -> None:
    senders, sender = given.get("senders"), given.get("sender")
    if isinstance(senders, list) and isinstance(sender, str) and sender not in senders:
        (at / "sender").wrong(
            f"sender is {sender!r}, which is not among senders{nearest(sender, map(str, senders))}"
        )


DELEGATED: Final = SigningAlgorithm(
    key_table(
        "a key of algorithm 'delegated'",
        Option(
            "root", RootKind(), "The key that delegates; see below.", required='root = { algorithm = "..." }'
        ),
        Option(
            "sender",
            Named("a sender"),
            "As whom this process signs, where `senders` names several; by default, who the file says we are.",
        ),
        Option(
            "lifetime",
            Duration(least=60, most=86_400),
            "How long a short-lived key signs, 1m at least. At two thirds of it the root is used again.",
            default="10m",
        ),
        Option(
            "accept_for",
            Duration(zero=True, most=3650 * 86_400),
            "How long after its end what it signed verifies: as long as messages may lie in queues.",
            default="14d",
        ),
        Option("delegate", Word(*get_args(Delegate)), "What short-lived keys are.", default="ed25519"),
        Option(
            "revoked",
            Listed(Text("a key id", check=_kid)),
            "Key ids of short-lived keys that were stolen, as `postseal inspect` prints them.",
        ),
        senders=WHOSE,
        doc="For whom the root may speak.",
    ),
    _make,
    binary=frozenset({"secret"}),
    check=_check,
)
