"""Who takes part: a shop that sends, billing that receives, a key service between them, and two who would like to be the shop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from postseal.core import AuditEvent, AwsKms, Ed25519Key, KeyRing, Policy, Sealer

__all__ = ["POLICY", "KeyService", "Parties"]

POLICY: Final = Policy(
    name="orders",
    destinations=[
        "kafka:orders",
        "kafka:refunds",
        "sqs:orders",
        "sqs:refunds",
        "rabbitmq:postseal-demo/orders",
        "rabbitmq:postseal-demo/refunds",
        "servicebus:orders",
        "servicebus:refunds",
    ],
    protection="privacy",  # encrypted, and signed by its sender
    keys=["main"],
    sign="senders",
    senders=["shop", "warehouse"],
    bind_headers=["content-type"],
    on_refused="dead-letter",
)
"""One policy for all brokers."""


class KeyService:
    """One key in AWS KMS, and a count of what it was asked to do.

    Args:
        make_client: Makes a KMS client; each party has one of its own, as each would have rights of its own.
    """

    def __init__(self, make_client: Callable[[], Any]) -> None:
        self._make_client = make_client
        self.key_arn: str = make_client().create_key()["KeyMetadata"]["Arn"]
        self.calls: Counter[str] = Counter()

    def provider(self, *, counted: bool = True) -> AwsKms:
        """Return the key provider of one party."""
        client = self._make_client()
        if counted:
            client.meta.events.register("after-call.kms", self._count)
        return AwsKms(client, self.key_arn)

    def _count(self, model: Any, **_: Any) -> None:
        self.calls[model.name] += 1


class Parties:
    """The sealers of all who take part, each with no more than is its own.

    Args:
        service: The key service.
        on_audit: Gets billing's audit events.
    """

    def __init__(self, service: KeyService, on_audit: Callable[[AuditEvent], None]) -> None:
        shop_key, warehouse_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()

        # The shop seals and signs. Its private key is in no other process.
        self.shop = Sealer(
            sender="shop",
            policies=[POLICY],
            keys={"main": service.provider()},
            signers={"senders": KeyRing([Ed25519Key("shop-2026", private_key=shop_key, senders=["shop"])])},
        )

        # Billing opens. It knows everybody's public key, and can sign as nobody.
        public = [
            Ed25519Key("shop-2026", public_key=shop_key.public_key(), senders=["shop"]),
            Ed25519Key("warehouse-2026", public_key=warehouse_key.public_key(), senders=["warehouse"]),
        ]
        self.billing = Sealer(
            sender="billing",
            policies=[POLICY],
            keys={"main": service.provider()},
            signers={"senders": KeyRing(public)},
            on_audit=on_audit,
        )

        # Both may use the key service, and both say that they are the shop.
        mine = Ed25519Key("warehouse-2026", private_key=warehouse_key, senders=["shop"])
        self.insider = self._pretending(service, mine)
        forged = Ed25519Key("shop-2026", private_key=Ed25519PrivateKey.generate(), senders=["shop"])
        self.impostor = self._pretending(service, forged)

    @staticmethod
    def _pretending(service: KeyService, key: Ed25519Key) -> Sealer:
        return Sealer(
            sender="shop",
            policies=[POLICY],
            keys={"main": service.provider(counted=False)},
            signers={"senders": KeyRing([key])},
        )
