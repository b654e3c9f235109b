"""A stranger's COSE library reads, verifies and decrypts what we seal, given the keys of SPEC.md 6.1 and 7 and the external_aad of 5.2."""

from __future__ import annotations

import json

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization
from pycose.algorithms import CoseAlgorithm
from pycose.headers import IV, KID, Algorithm
from pycose.keys import CoseKey
from pycose.keys.symmetric import SymmetricKey
from pycose.messages import EncMessage, Mac0Message, Sign1Message
from pycose.messages.enccommon import EncCommon
from pycose.messages.recipient import CoseRecipient, DirectEncryption, KeyWrap

from tests import reference
from tests.vectors import load

VECTORS = {file.stem: json.loads(file.read_text("utf-8")) for file in load.FILES}
OPENING = sorted(name for name, vector in VECTORS.items() if vector["expect"]["opens"])
PRIVATE_ALGORITHMS = (-65537, -65538, -65539, -65540, -65541, -65542, -65543, 7777)


@pytest.fixture(autouse=True, scope="module")
def _private_wrapping_algorithms():
    """Tell pycose of our private numbers; it does not pass over recipients that it does not know."""
    for number in PRIVATE_ALGORITHMS:
        wrapping = type(
            f"Private{-number}", (CoseAlgorithm,), {"identifier": number, "fullname": f"PRIVATE_{number}"}
        )
        CoseAlgorithm.register_attribute()(wrapping)
        CoseRecipient.record_rc([wrapping])(KeyWrap)


def _parts(envelope):
    # Without its tag, because pycose 1.1 wants lists and cbor2 6 gives tuples within tags.
    head = 2 if envelope[0] == 0xD8 else 1
    return cbor2.loads(envelope[head:])


def _public_key(vector, kid):
    keys = vector["opening"]["verifying_keys"]
    [public] = [key["public_key"] for key in keys if key["id"].encode() == kid]
    return bytes.fromhex(public)


def _verified(envelope, vector, result):
    kind = Mac0Message if envelope[0] == 0xD1 else Sign1Message
    message = kind.from_cose_obj(_parts(envelope), allow_unknown_attributes=True)
    message.external_aad = result.intermediate["external_aad"]
    kid = message.phdr[KID]
    if kind is Mac0Message:
        message.key = SymmetricKey(k=result.intermediate["hmac_key"])
        assert message.verify_tag()
    else:
        public = result.intermediate.get("public_key") or _public_key(vector, kid)
        pem = serialization.load_der_public_key(public).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        message.key = CoseKey.from_pem_public_key(pem.decode())
        assert message.verify_signature()
        message.external_aad = b"\x00" + message.external_aad
        assert not message.verify_signature()
    return message.payload


def _read_direct(envelope, result):
    """Read what only the key service decrypts (SPEC.md 3.7). To pycose, a number stands for one class of recipients."""
    [(number, _, _)] = result.inner.recipients
    wraps, classes = CoseAlgorithm.from_id(number), CoseRecipient._RCPT_CLASSES
    before = classes[wraps]
    classes[wraps] = DirectEncryption
    try:
        message = EncMessage.from_cose_obj(_parts(envelope), allow_unknown_attributes=True)
    finally:
        classes[wraps] = before
    assert message.phdr[Algorithm].identifier == -65543
    assert [recipient.payload for recipient in message.recipients] == [b""]
    assert message.payload == result.inner.payload


@pytest.mark.parametrize("name", OPENING)
def test_pycose_reads_it(name):
    vector = VECTORS[name]
    envelope = load.binary(vector, "envelope")
    result = reference.open_envelope(envelope, load.reference_opening(vector["opening"]))
    payload = envelope if envelope[0] == 0xD8 else _verified(envelope, vector, result)
    if vector["opening"]["policy"]["protection"] != "integrity":
        if vector["opening"]["policy"].get("direct"):
            _read_direct(payload, result)
            return
        message = EncMessage.from_cose_obj(_parts(payload), allow_unknown_attributes=True)
        assert message.phdr[Algorithm].identifier == 3
        assert message.phdr[IV] == result.inner.nonce
        assert len(message.recipients) == len(result.inner.recipients)
        assert message.recipients[-1].payload == result.inner.recipients[-1][2]
        message.external_aad = result.intermediate["external_aad"]
        message.key = SymmetricKey(k=result.intermediate["message_key"])
        payload = EncCommon.decrypt(message)
    if result.inner.framed:
        payload = reference.unframe(payload)[1]
    assert payload == load.binary(vector["expect"], "body")
