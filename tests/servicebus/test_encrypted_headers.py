"""Application properties that travel in the envelope: what is Service Bus's own of it. The rest stands in the contract."""

from __future__ import annotations

from uuid import UUID

import pytest
from azure.servicebus import ServiceBusMessage

from postseal.core import ConfigError, Policy, Sealer
from postseal.servicebus._message import _put_back, bound_by, draft_of
from tests.fakes import FakeKeys

HERE = "servicebus:orders"
SENT = {
    "text": "grün",
    b"bytes": b"\x00\xff",
    "whole": -(2**63),
    "yes": True,
    "real": 0.1,
    "id": UUID(int=7),
}
RECEIVED = {
    b"text": "grün".encode(),
    b"bytes": b"\x00\xff",
    b"whole": -(2**63),
    b"yes": True,
    b"real": 0.1,
    b"id": UUID(int=7),
}


def test_values_of_every_type_come_back_as_the_client_hands_them_out():
    names = ["text", "bytes", "whole", "yes", "real", "id"]
    policy = Policy(name="p", destinations=[HERE], keys=["main"], encrypt_headers=names)
    sealer = Sealer(sender="shop", policies=[policy], keys={"main": FakeKeys()})
    message = ServiceBusMessage(b"body", application_properties={**SENT, "other": "x"})  # type: ignore[dict-item]
    draft = draft_of(message.raw_amqp_message, policy)
    assert draft.parts["application_properties"] == {"other": "x"}
    assert message.application_properties == {**SENT, "other": "x"}
    envelope = sealer.seal(draft.body, destination=HERE, **draft.beside)
    opened = sealer.open(envelope, destination=HERE)
    assert _put_back({b"other": b"x"}, opened) == {**RECEIVED, b"other": b"x"}


@pytest.mark.parametrize(
    "name", ["correlation-id", "correlation_id", "Subject", "session-id", "DeadLetterReason"]
)
def test_properties_of_the_protocol_cannot_be_encrypted(name):
    policy = Policy(name="p", destinations=[HERE], keys=["main"], encrypt_headers=[name])
    with pytest.raises(ConfigError, match="encrypt_headers names"):
        bound_by(policy)
