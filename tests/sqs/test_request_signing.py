"""What the client signs is its call; what we sign is the message, and outlives the call."""

from __future__ import annotations

import re

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from postseal.core import Verdict
from postseal.sqs import protect
from tests.contract import Raw
from tests.sqs.conftest import _OPTIONS, make_client

CLEAR = "4111 1111 1111 1111"


def signature_of(sent) -> str:
    """Sign a request that left a client once more, from its own bytes. Source: AWS Signature Version 4."""
    given = {name.lower(): value.decode() for name, value in sent.headers.items() if isinstance(value, bytes)}
    given |= {name.lower(): value for name, value in sent.headers.items() if isinstance(value, str)}
    names = re.search("SignedHeaders=([^,]+)", given["authorization"])[1].split(";")
    headers = {name: given[name] for name in names if name in given}
    again = AWSRequest(sent.method, sent.url, headers=headers, data=sent.body)
    again.context["timestamp"] = given["x-amz-date"]
    credentials = Credentials(_OPTIONS["aws_access_key_id"], _OPTIONS["aws_secret_access_key"])
    auth = SigV4Auth(credentials, "sqs", _OPTIONS["region_name"])
    return auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again)


@pytest.mark.parametrize("protection", ["privacy", "integrity"])
def test_the_call_is_signed_as_ever_and_the_message_by_its_sender(world, line, protection):
    """E9: the API's signature is over what we made of the body; ours comes with the message, and the consumer checks it."""
    place = line.place()
    options = {"protection": protection, "sign": "shop", "senders": ["shop"], "on_refused": "discard"}
    policy = world.policy(place, **options, **({"keys": []} if protection == "integrity" else {}))
    client, sent = protect(make_client(), world.sealer(policy)), []
    client.meta.events.register_first(
        "before-send.sqs.SendMessage", lambda request, **_: sent.append(request)
    )
    client.send_message(QueueUrl=line.url(place), MessageBody=CLEAR)

    [request] = sent
    authorization = request.headers["Authorization"].decode()
    assert authorization.endswith(f"Signature={signature_of(request)}")
    request.body += b" "
    assert signature_of(request) not in authorization  # it is over what was sealed, to the last byte

    [raw] = line.held(place, 1)
    with line.receiving(world.sealer(policy), place) as receiving:
        assert receiving.take(1) == [CLEAR.encode()]
    # Whoever has the right to call SQS has no right to speak as the shop: a call that is signed well, of a message that is not.
    body = raw.body[:-2] + (b"AA" if raw.body[-2:] != b"AA" else b"BB")
    line.put(place, Raw(body, raw.headers))
    with line.receiving(world.sealer(policy), place) as receiving:
        receiving.until(lambda: bool(world.events))
    assert receiving.bodies == []
    assert world.verdicts() == [Verdict.FORGED]
