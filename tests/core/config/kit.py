"""What tests of the policy file share: a file without a mistake, into which each puts one."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

NOW = datetime(2026, 12, 1, tzinfo=UTC)
SECRET = base64.b64encode(bytes(range(32))).decode()
GOOD = """\
sender = "billing-api"

[keys.main]
provider = "aws-kms"
key_id = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"

[keys.archive]
provider = "local"
file = "archive.toml"

[signers.billing]
algorithm = "hmac-sha256"
keys = [
    { id = "2026-10", state = "active", secret = { env = "POSTSEAL_BILLING" } },
    { id = "2026-04", state = "retired", retired_until = 2027-03-01, secret = { env = "POSTSEAL_BILLING_OLD" } },
]

[[policy]]
name = "orders"
destinations = ["kafka:orders", "sqs:orders*", "rabbitmq:shop/orders.#", "servicebus:orders"]
accept_from = ["sqs:dead-orders"]
protection = "privacy"
keys = ["main", "archive"]
sign = "billing"
senders = ["billing-api", "shop-web"]
bind_headers = ["content-type", "correlation-id"]
mode = "tolerate"
tolerate_until = 2027-01-31
on_refused = "dead-letter"
data_key = { max_age = "10m", max_messages = 1048576, max_bytes = "64GiB" }
opening = { max_age = "5m", max_stale = "1h" }
max_message_age = "14d"

[[policy]]
name = "logs"
destinations = ["kafka:logs"]
keys = ["main"]
"""

SIGNERS = """\
sender = "billing-api"

[signers.shop]
algorithm = "x509"

[[signers.shop.keys]]
id = "billing-2026"
certificate = "billing.crt"
private_key = { file = "billing.key" }
senders = ["billing-api"]

[[signers.shop.keys]]
id = "shop-ca"
roots = "ca.pem"
names = { billing-api = ["CN=billing-api", "O=Shop"], shop-web = ["DNS:web.shop.example"] }
lists = ["shop.crl", "https://ca.shop.example/shop.crl"]
ocsp = "http://ocsp.shop.example"
on_stale = "wait"
max_age = "10m"

[signers.cloud]
algorithm = "delegated"

[[signers.cloud.keys]]
id = "billing-aws"
senders = ["billing-api", "shop-web"]
sender = "billing-api"
lifetime = "20m"
accept_for = "7d"
delegate = "es256"

[signers.cloud.keys.root]
algorithm = "aws-kms-es256"
key_id = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"
refresh = "1m"

[[signers.cloud.keys]]
id = "billing-azure"
senders = ["billing-api"]
root = { algorithm = "azure-key-vault-es256", key = "https://billing.vault.azure.net/keys/signing/0123456789abcdef0123456789abcdef" }

[[signers.cloud.keys]]
id = "billing-mac"
senders = ["billing-api"]
root = { algorithm = "aws-kms-hmac", key_id = "arn:aws:kms:eu-west-1:111122223333:key/mac", max_calls = 60, signs = false }

[[signers.cloud.keys]]
id = "billing-offline"
senders = ["billing-api"]
root = { algorithm = "ed25519", public_key = "root.pem" }

[[policy]]
name = "orders"
destinations = ["kafka:orders"]
protection = "integrity"
sign = "shop"
senders = ["billing-api", "shop-web"]

[[policy]]
name = "bills"
destinations = ["kafka:bills"]
protection = "integrity"
sign = "cloud"
senders = ["billing-api", "shop-web"]
"""
"""Another one, whose signers are certificates and keys that delegate."""


def line_of(words: str, text: str = GOOD) -> int:
    """Return the line of *text* with those words."""
    (found,) = [number for number, line in enumerate(text.split("\n"), 1) if words in line]
    return found
