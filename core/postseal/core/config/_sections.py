"""What a policy file has at its top: the one table from which it is read, and from which schema and reference are made.

Whoever adds a section adds its option here, and what it becomes to `_making`.
"""

from __future__ import annotations

from typing import Final

from postseal.core.config._audit import ALARM, AUDIT
from postseal.core.config._keys import KeysKind
from postseal.core.config._kinds import Either, Listed, Named, Option, Table, Tables
from postseal.core.config._ledger import LedgerKind
from postseal.core.config._policies import POLICY
from postseal.core.config._references import ReferencesKind
from postseal.core.config._secrets import Secret
from postseal.core.config._signers import SignerKind

__all__ = ["FILE"]

FILE: Final = Table(
    Option(
        "sender",
        Either(Named("a sender"), Secret(binary=False)),
        'Who we are; travels in each message. Or where that is said: `{ env = "POSTSEAL_SENDER" }`. Needed unless the program says it.',
    ),
    Option(
        "deduplication_secret",
        Secret(),
        "At least 32 random bytes that all producers share and never change: keeps content-based deduplication of SQS FIFO queues working.",
    ),
    Option(
        "keys",
        Tables(KeysKind(), "tables by name: `[keys.NAME]`"),
        "Key services that wrap data keys, by names that policies use.",
    ),
    Option(
        "signers",
        Tables(SignerKind(), "tables by name: `[signers.NAME]`"),
        "Key rings that sign and verify, by names that policies use.",
    ),
    Option(
        "policy",
        Listed(POLICY, empty="a file without a policy protects nothing", tables=True),
        "What must be done for which destination.",
        required="a file without a [[policy]] protects nothing",
    ),
    Option(
        "references",
        ReferencesKind(),
        "Where data keys are published that messages carry by reference: for policies with `key_by_reference`.",
    ),
    Option("audit", AUDIT, "Where refused messages are told of: a file, syslog, `logging`. docs/audit.md."),
    Option("alarm", ALARM, "When refused messages are so many that the alarm is raised."),
    Option(
        "ledger",
        LedgerKind(),
        "Which messages were settled: tells redeliveries from duplicates, and refuses conflicts. docs/ledger.md.",
    ),
    what="the file",
    elsewhere={
        **{name: "a [[policy]]" for name in POLICY.options if name != "keys"},
        "policies": "[[policy]], one for each",
        "key": "[keys.NAME]",
        "signer": "[signers.NAME]",
        "provider": "[keys.NAME]",
        "store": "[references]",
        "algorithm": "[signers.NAME]",
    },
)
