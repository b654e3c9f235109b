"""postseal seals messages in the producer and opens them in the consumer.

A working program::

    from postseal.core import Policy, Sealer, UnsafeLocalKeys

    orders = Policy(name="orders", destinations=["kafka:orders"], keys=["main"])
    sealer = Sealer(sender="billing-api", policies=[orders], keys={"main": UnsafeLocalKeys.ephemeral()})

    envelope = sealer.seal(b"4111 1111 1111 1111", destination="kafka:orders")
    print(sealer.open(envelope, destination="kafka:orders").body)

In production the key provider is `AwsKms`, `AzureKeyVault` or `VaultTransit`. Adapters (`postseal.kafka`, `postseal.sqs`) call the
sealer, so that programs need not.
"""

from typing import TYPE_CHECKING, Any

from postseal.core.datakeys import DataKeyLimits, OpeningLimits
from postseal.core.errors import (
    AuditUnavailable,
    ConfigError,
    KeyRefused,
    KeyUnavailable,
    LedgerUnavailable,
    MissingExtraError,
    PostsealError,
    Refused,
    TooLarge,
    Verdict,
)
from postseal.core.keys import KeyContext, KeyProvider, NewDataKey, Recipient, ReferenceStore
from postseal.core.opened import Opened, Verified
from postseal.core.policy import Policy
from postseal.core.providers.combined import CombinedKeys
from postseal.core.sealer import Sealer
from postseal.core.signing import Ed25519Key, Es256Key, HmacKey, KeyRing, Origin, SigningKey

if TYPE_CHECKING:
    from postseal.core.audit import AlarmEvent, AlarmLimits, AuditEvent, AuditSink, FloodLimit, MoreEvents
    from postseal.core.audit.files import AuditFile
    from postseal.core.audit.syslog import AuditSyslog
    from postseal.core.certified import X509Key, X509Roots
    from postseal.core.delegation import DelegatedKey
    from postseal.core.providers.aws_kms import AwsKms
    from postseal.core.providers.aws_kms_signing import AwsKmsEs256Key, AwsKmsHmacKey
    from postseal.core.providers.azure_key_vault import AzureKeyVault
    from postseal.core.providers.azure_signing import AzureEs256Key
    from postseal.core.providers.branch import BranchKeys
    from postseal.core.providers.local import UnsafeLocalKeys, UnsafeLocalKeysWarning
    from postseal.core.providers.public_key import PublicKeyRecipients
    from postseal.core.providers.reference_stores import (
        AzureTableReferences,
        CombinedReferences,
        DynamoReferences,
        MemoryReferences,
        SqliteReferences,
    )
    from postseal.core.providers.vault import VaultTransit
    from postseal.core.publickeys import OpeningKey, RecipientKey
    from postseal.core.replay import Ledger, MemoryLedger, RedisLedger, ReplayWindow, SqliteLedger

__all__ = [
    "AlarmEvent",
    "AlarmLimits",
    "AuditEvent",
    "AuditFile",
    "AuditSink",
    "AuditSyslog",
    "AuditUnavailable",
    "AwsKms",
    "AwsKmsEs256Key",
    "AwsKmsHmacKey",
    "AzureEs256Key",
    "AzureKeyVault",
    "AzureTableReferences",
    "BranchKeys",
    "CombinedKeys",
    "CombinedReferences",
    "ConfigError",
    "DataKeyLimits",
    "DelegatedKey",
    "DynamoReferences",
    "Ed25519Key",
    "Es256Key",
    "FloodLimit",
    "HmacKey",
    "KeyContext",
    "KeyProvider",
    "KeyRefused",
    "KeyRing",
    "KeyUnavailable",
    "Ledger",
    "LedgerUnavailable",
    "MemoryLedger",
    "MemoryReferences",
    "MissingExtraError",
    "MoreEvents",
    "NewDataKey",
    "Opened",
    "OpeningKey",
    "OpeningLimits",
    "Origin",
    "Policy",
    "PostsealError",
    "PublicKeyRecipients",
    "Recipient",
    "RecipientKey",
    "RedisLedger",
    "ReferenceStore",
    "Refused",
    "ReplayWindow",
    "Sealer",
    "SigningKey",
    "SqliteLedger",
    "SqliteReferences",
    "TooLarge",
    "UnsafeLocalKeys",
    "UnsafeLocalKeysWarning",
    "VaultTransit",
    "Verdict",
    "Verified",
    "X509Key",
    "X509Roots",
]

_LAZY = {
    "AlarmEvent": "postseal.core.audit",
    "AlarmLimits": "postseal.core.audit",
    "AuditEvent": "postseal.core.audit",
    "AuditSink": "postseal.core.audit",
    "FloodLimit": "postseal.core.audit",
    "MoreEvents": "postseal.core.audit",
    "AuditFile": "postseal.core.audit.files",
    "AuditSyslog": "postseal.core.audit.syslog",
    "AwsKms": "postseal.core.providers.aws_kms",
    "AwsKmsEs256Key": "postseal.core.providers.aws_kms_signing",
    "AwsKmsHmacKey": "postseal.core.providers.aws_kms_signing",
    "AzureEs256Key": "postseal.core.providers.azure_signing",
    "AzureKeyVault": "postseal.core.providers.azure_key_vault",
    "AzureTableReferences": "postseal.core.providers.reference_stores",
    "BranchKeys": "postseal.core.providers.branch",
    "CombinedReferences": "postseal.core.providers.reference_stores",
    "DelegatedKey": "postseal.core.delegation",
    "DynamoReferences": "postseal.core.providers.reference_stores",
    "OpeningKey": "postseal.core.publickeys",
    "PublicKeyRecipients": "postseal.core.providers.public_key",
    "RecipientKey": "postseal.core.publickeys",
    "Ledger": "postseal.core.replay",
    "MemoryLedger": "postseal.core.replay",
    "MemoryReferences": "postseal.core.providers.reference_stores",
    "RedisLedger": "postseal.core.replay",
    "ReplayWindow": "postseal.core.replay",
    "SqliteLedger": "postseal.core.replay",
    "SqliteReferences": "postseal.core.providers.reference_stores",
    "UnsafeLocalKeys": "postseal.core.providers.local",
    "UnsafeLocalKeysWarning": "postseal.core.providers.local",
    "VaultTransit": "postseal.core.providers.vault",
    "X509Key": "postseal.core.certified",
    "X509Roots": "postseal.core.certified",
}
"""Key providers, keys of services, certificates, delegation, ledgers and references are loaded by who uses them."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - for these few alone

    return getattr(import_module(_LAZY[name]), name)
