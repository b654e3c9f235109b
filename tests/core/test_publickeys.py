"""Recipients known by a public key or a certificate: what wraps, what opens, and what is refused when it is read."""

from __future__ import annotations

import datetime as dt
import os
import pickle
import re
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from cryptography.hazmat.primitives.serialization import pkcs12
from pycose.algorithms import A256KW, EcdhEsA256KW
from pycose.keys import EC2Key
from pycose.keys.curves import P256
from pycose.keys.symmetric import SymmetricKey
from pycose.messages.context import CoseKDFContext, PartyInfo, SuppPubInfo

from postseal.core import (
    CombinedKeys,
    ConfigError,
    Es256Key,
    KeyRefused,
    KeyRing,
    OpeningKey,
    Policy,
    PublicKeyRecipients,
    RecipientKey,
    Sealer,
)
from postseal.core import publickeys as room
from postseal.core.crypto import fingerprint
from postseal.core.errors import KeyBroken, NotMine
from postseal.core.keys import KeyContext, Recipient
from postseal.core.providers._binding import canonical
from tests.core.authority import NOW, Authority, certificate_of, usage
from tests.core.provider_contract import ProviderContract
from tests.core.stand_ins import CONTEXT, local_keys

KINDS = ["rsa-2048", "p-256", "x25519", pytest.param("x-wing", marks=pytest.mark.skipif(not room.offers_ml_kem(), reason="no ML-KEM in this cryptography"))]  # fmt: skip
BOUND = canonical(CONTEXT)
DATA_KEY = bytes(range(32))


def new_key(kind: str) -> OpeningKey:
    if kind.startswith("rsa-"):
        return OpeningKey(rsa.generate_private_key(65537, int(kind.removeprefix("rsa-"))))
    return OpeningKey.generate(kind)


KEYS: dict[tuple[str, int], OpeningKey] = {}


def key_of(kind: str, number: int = 0) -> OpeningKey:
    """RSA keys take a while to make: the same ones for all tests."""
    if (kind, number) not in KEYS:
        KEYS[kind, number] = new_key(kind)
    return KEYS[kind, number]


class TestPublicKeys(ProviderContract):
    @pytest.fixture(params=KINDS, autouse=True)
    def kind(self, request):
        return request.param

    @pytest.fixture
    def provider(self, kind):
        return PublicKeyRecipients([key_of(kind).public], open_with=[key_of(kind)])

    @pytest.fixture
    def stranger(self, kind):
        return PublicKeyRecipients([key_of(kind, 1).public], open_with=[key_of(kind, 1)])


# -- who opens ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_producer_holds_no_private_key_and_cannot_open_what_it_sealed(kind):
    """B2: no private key leaves its process."""
    producer = PublicKeyRecipients([key_of(kind).public])
    made = producer.generate(CONTEXT)
    with pytest.raises(NotMine):
        producer.unwrap(made.recipients, CONTEXT)
    assert PublicKeyRecipients(open_with=[key_of(kind)]).unwrap(made.recipients, CONTEXT) == made.data_key


def test_each_of_several_recipients_opens_alone_and_a_third_cannot():
    """A5."""
    first, second, third = key_of("rsa-2048"), key_of("p-256"), key_of("x25519")
    made = PublicKeyRecipients([first.public, second.public]).generate(CONTEXT)
    assert len(made.recipients) == 2
    for key in (first, second):
        assert PublicKeyRecipients(open_with=[key]).unwrap(made.recipients, CONTEXT) == made.data_key
    with pytest.raises(NotMine):
        PublicKeyRecipients(open_with=[third]).unwrap(made.recipients, CONTEXT)


def test_a_process_that_only_opens_seals_nothing():
    with pytest.raises(KeyRefused, match="only opens"):
        PublicKeyRecipients(open_with=[key_of("x25519")]).generate(CONTEXT)


def test_nobody_twice_and_nobody_at_all_are_refused():
    with pytest.raises(ConfigError, match="needs a public key"):
        PublicKeyRecipients()
    with pytest.raises(ConfigError, match="named twice"):
        PublicKeyRecipients([key_of("x25519").public] * 2)
    with pytest.raises(ConfigError, match="17 recipients"):
        PublicKeyRecipients([OpeningKey.generate("x25519").public for _ in range(17)])


def test_it_stands_beside_a_key_service():
    """B11: an archive's public key on every data key, the private part elsewhere."""
    archive = key_of("x25519", 2)
    orders = Policy(name="orders", destinations=["kafka:orders"], keys=["main", "archive"])
    sealer = Sealer(
        sender="shop",
        policies=[orders],
        keys={"main": local_keys(), "archive": PublicKeyRecipients([archive.public])},
    )
    envelope = sealer.seal(b"4111", destination="kafka:orders")
    later = Sealer(
        sender="shop",
        policies=[orders.replace(keys=["archive"])],
        keys={"archive": PublicKeyRecipients(open_with=[archive])},
    )
    assert later.open(envelope, destination="kafka:orders").body == b"4111"


@pytest.mark.parametrize("side", ["wraps", "opens"])
def test_a_sealer_neither_signs_nor_verifies_with_a_key_that_opens(side):
    """B1: an identity is two key pairs."""
    private = ec.generate_private_key(ec.SECP256R1())
    key = OpeningKey(private)
    provider = PublicKeyRecipients(
        [key.public] if side == "wraps" else [], open_with=[key] if side == "opens" else []
    )
    assert provider.public_key_fingerprints == {key.public.fingerprint} == {fingerprint(private.public_key())}
    orders = Policy(
        name="orders",
        destinations=["kafka:orders"],
        keys=["main"],
        protection="privacy",
        sign="ring",
        senders=["shop"],
    )

    def sealer(signer: ec.EllipticCurvePrivateKey) -> Sealer:
        ring = KeyRing([Es256Key("es-1", private_key=signer, senders=["shop"])])
        return Sealer(
            sender="shop", policies=[orders], keys={"main": CombinedKeys([provider])}, signers={"ring": ring}
        )

    with pytest.raises(ConfigError, match="open"):
        sealer(private)
    assert sealer(ec.generate_private_key(ec.SECP256R1()))


# -- the bytes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "algorithm", "size"),
    [("rsa-2048", -41, 272), ("p-256", -65540, 73), ("x25519", -65540, 72), ("x-wing", -65541, 1160)],
)
def test_a_wrapped_key_has_the_size_of_the_specification(kind, algorithm, size):
    """SPEC.md 6.3; docs/keys.md, bytes a recipient."""
    recipient = PublicKeyRecipients([key_of(kind).public]).wrap(DATA_KEY, CONTEXT)[0]
    assert (recipient.algorithm, len(recipient.key_id), len(recipient.wrapped_key)) == (algorithm, 8, size)


def test_the_bytes_a_recipient_adds_are_those_of_the_table():
    """B3: docs/keys.md. A wrap for each recipient, not a body."""
    page = (Path(__file__).parents[2] / "docs" / "keys.md").read_text("utf-8")
    rows = re.findall(r"^\| (X25519|P-256|RSA \d+|X-Wing) \| ([\d,]+) \|", page, re.MULTILINE)
    told = {name.lower().replace(" ", "-"): int(size.replace(",", "")) for name, size in rows}
    assert set(told) == {"x25519", "p-256", "rsa-2048", "rsa-3072", "rsa-4096", "x-wing"}
    orders = Policy(name="orders", destinations=["kafka:orders"], keys=["main"])
    body = bytes(100_000)

    def size(*keys: OpeningKey) -> int:
        provider = PublicKeyRecipients([key.public for key in keys])
        return len(
            Sealer(sender="shop", policies=[orders], keys={"main": provider}).seal(
                body, destination="kafka:orders"
            )
        )

    first, alone = key_of("x25519"), size(key_of("x25519"))
    added = {key.public.kind: size(first, key) - alone for key in map(new_key, told)}
    assert added == told


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrapped_key_of_another_size_is_broken(kind):
    key = key_of(kind)
    wrapped = key.public.wrap(DATA_KEY, BOUND)
    for changed in (
        b"",
        wrapped[:-1],
        wrapped[1:],
        wrapped + b"\x00",
        b"\x00" * len(wrapped),
        b"\xff" * len(wrapped),
    ):
        with pytest.raises(KeyBroken):
            key.unwrap(changed, BOUND)


class ZeroLengthProtected(SuppPubInfo):
    """pycose 1.1 writes an empty map where RFC 9053 5.2 has a zero-length byte string for no parameters."""

    def encode(self) -> list:
        return [self.key_data_length * 8, b"", self.other]


def kdf_context(sent: bytes, public: bytes) -> CoseKDFContext:
    return CoseKDFContext(
        A256KW, ZeroLengthProtected(32, {}, BOUND), PartyInfo(other=sent), PartyInfo(other=public)
    )


def test_pycose_derives_the_same_wrapping_key_for_p_256_and_unwraps():
    """A stranger's ECDH-ES + A256KW with the COSE_KDF_Context of RFC 9053 5.2."""
    private = ec.generate_private_key(ec.SECP256R1())
    wrapped = OpeningKey(private).public.wrap(DATA_KEY, BOUND)
    sent, inner = wrapped[:33], wrapped[33:]
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sent).public_numbers()
    compressed = private.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    kek = EcdhEsA256KW.derive_kek(
        P256,
        EC2Key(crv=P256, d=private.private_numbers().private_value.to_bytes(32, "big")),
        EC2Key(crv=P256, x=point.x.to_bytes(32, "big"), y=point.y.to_bytes(32, "big")),
        kdf_context(sent, compressed),
    )
    assert A256KW.key_unwrap(SymmetricKey(k=kek), inner) == DATA_KEY


def test_the_context_for_x25519_is_the_one_that_pycose_encodes():
    private = X25519PrivateKey.generate()
    wrapped = OpeningKey(private).public.wrap(DATA_KEY, BOUND)
    sent = wrapped[:32]
    secret = private.exchange(room.X25519PublicKey.from_public_bytes(sent))
    info = kdf_context(sent, private.public_key().public_bytes_raw()).encode()
    kek = room.crypto.derive(secret, info)
    assert aes_key_unwrap(kek, wrapped[32:]) == DATA_KEY


@pytest.mark.parametrize("kind", ["p-256", "x25519"])
def test_given_randomness_gives_the_same_bytes(kind):
    public = key_of(kind).public
    same = [public.wrap(DATA_KEY, BOUND, random=lambda size: b"\x07" * size) for _ in range(2)]
    assert same[0] == same[1]


def test_another_number_of_ours_on_a_recipient_is_passed_over():
    """The algorithm is a property of the key, never of the message."""
    provider = PublicKeyRecipients([key_of("x25519").public], open_with=[key_of("x25519")])
    [made] = provider.wrap(DATA_KEY, CONTEXT)
    for algorithm in (-41, -65541, -31):
        with pytest.raises(NotMine):
            provider.unwrap([Recipient(algorithm, made.key_id, made.wrapped_key)], CONTEXT)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrap_does_not_move_between_keys_or_contexts(kind):
    """A8."""
    wrapped = key_of(kind).public.wrap(DATA_KEY, BOUND)
    for key, bound in (
        (key_of(kind, 1), BOUND),
        (key_of(kind), canonical(KeyContext("orders", "kafka:other"))),
    ):
        with pytest.raises(KeyBroken):
            key.unwrap(wrapped, bound)


def test_what_is_wrapped_by_rsa_must_be_a_data_key():
    """Whoever has the public key can wrap anything."""
    key = key_of("rsa-2048")
    public = serialization.load_pem_public_key(key.public.to_pem())
    for size in (0, 31, 33):
        wrapped = public.encrypt(bytes(size), room._OAEP) + room.crypto.derive(bytes(size), BOUND, 16)
        with pytest.raises(KeyBroken):
            key.unwrap(wrapped, BOUND)


# -- keys in files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_both_parts_are_written_and_read_again(kind, tmp_path):
    key = key_of(kind)
    file = tmp_path / "key.pem"
    file.touch(0o600)
    file.write_bytes(key.to_pem())
    (tmp_path / "public.pem").write_bytes(key.public.to_pem())
    again = OpeningKey.from_file(file)
    public = RecipientKey.from_file(tmp_path / "public.pem")
    assert again.public == public == key.public
    assert hash(public) == hash(key.public)
    assert again.unwrap(public.wrap(DATA_KEY, BOUND), BOUND) == DATA_KEY


@pytest.mark.parametrize("kind", ["rsa-2048", "p-256", "x25519"])
def test_a_private_key_is_read_with_its_password_by_reference(kind, tmp_path):
    key = key_of(kind)
    file = tmp_path / "key.pem"
    file.write_bytes(key.to_pem("secret"))
    assert b"ENCRYPTED" in file.read_bytes()
    assert OpeningKey.from_file(file, lambda: "secret").public == key.public
    for wrong in (b"other", None):
        if wrong is None:
            file.chmod(0o600)
        with pytest.raises(ConfigError, match=re.escape("key.pem: ")) as caught:
            OpeningKey.from_file(file, wrong)
        assert "secret" not in str(caught.value)


def test_pkcs_12_is_read(tmp_path):
    key = rsa.generate_private_key(65537, 2048)
    data = pkcs12.serialize_key_and_certificates(
        b"orders", key, None, None, serialization.BestAvailableEncryption(b"secret")
    )
    file = tmp_path / "key.p12"
    file.write_bytes(data)
    assert OpeningKey.from_file(file, b"secret").public == OpeningKey(key).public
    with pytest.raises(ConfigError, match=r"key\.p12"):
        OpeningKey.from_file(file, b"other")


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
def test_a_private_key_that_everybody_can_read_is_refused(tmp_path):
    file = tmp_path / "key.pem"
    file.write_bytes(key_of("x25519").to_pem())
    file.chmod(0o604)
    with pytest.raises(ConfigError, match="chmod 600"):
        OpeningKey.from_file(file)


def test_what_is_no_such_key_is_refused_in_a_sentence():
    signer = ed25519.Ed25519PrivateKey.generate()
    pem = signer.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    small = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505 - too small is the test
    for given, why in (
        (pem, "kind Ed25519"),
        (
            ec.generate_private_key(ec.SECP384R1())
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
            "kind secp384r1",
        ),
        (
            small.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
            "1024 bits",
        ),
        (key_of("x25519").to_pem(), "private key"),
        (b"", "a recipient's key: "),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "a recipient's key: "),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate: "),
    ):
        with pytest.raises(ConfigError, match=why):
            RecipientKey.from_pem(given)
    with pytest.raises(ConfigError, match="cannot be read"):
        RecipientKey.from_file("/nowhere.pem")
    with pytest.raises(ConfigError, match="did you mean 'x25519'"):
        OpeningKey.generate("x25591")
    with pytest.raises(ConfigError, match="not for a bare key"):
        RecipientKey.from_pem(key_of("x25519").public.to_pem(), roots=b"")


def test_a_private_key_neither_shows_nor_pickles():
    """D3."""
    key = key_of("x25519")
    assert key.seed.hex() not in repr(key) + repr(PublicKeyRecipients(open_with=[key]))
    with pytest.raises(TypeError, match="not for pickling"):
        pickle.dumps(key)
    with pytest.raises(TypeError, match="not for pickling"):
        pickle.dumps(PublicKeyRecipients(open_with=[key]))


@pytest.mark.parametrize("kind", ["x25519", "x-wing"])
def test_a_seed_makes_the_key_again(kind):
    key = key_of(kind)
    assert OpeningKey.from_seed(key.seed, kind).public == key.public


def test_without_ml_kem_an_x_wing_key_says_so(monkeypatch):
    key = key_of("x-wing")
    pem, private = key.public.to_pem(), key.to_pem()
    monkeypatch.setattr(room, "offers_ml_kem", lambda: False)
    for read in (
        lambda: OpeningKey.generate("x-wing"),
        lambda: RecipientKey.from_pem(pem),
        lambda: OpeningKey.from_pem(private),
    ):
        with pytest.raises(ConfigError, match="ML-KEM-768, which the installed cryptography does not offer"):
            read()


# -- certificates ------------------------------------------------------------------------------------------------------


def test_the_pair_that_speaks_tls_is_the_recipient():
    """A12: one PEM pair does both."""
    authority = Authority()
    key = rsa.generate_private_key(65537, 2048)
    certificate = authority.issue(
        "orders.example", key.public_key(), digital_signature=True, key_encipherment=True
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    recipient = RecipientKey.from_pem(certificate, roots=authority.pem, clock=NOW.timestamp)
    opening = OpeningKey.from_pem(pem)
    assert recipient == opening.public
    assert recipient.name == "CN=orders.example"
    assert opening.unwrap(recipient.wrap(DATA_KEY, BOUND), BOUND) == DATA_KEY


@pytest.mark.parametrize(
    ("key", "allowed", "other"),
    [
        (rsa.generate_private_key(65537, 2048), "key_encipherment", "key_agreement"),
        (ec.generate_private_key(ec.SECP256R1()), "key_agreement", "key_encipherment"),
        (X25519PrivateKey.generate(), "key_agreement", "digital_signature"),
    ],
    ids=["rsa", "p-256", "x25519"],
)
def test_the_usage_of_a_certificate_is_checked(key, allowed, other):
    """A12."""
    authority = Authority()
    good = authority.issue("orders", key.public_key(), **{allowed: True})
    assert (
        RecipientKey.from_pem(good, roots=authority.pem, clock=NOW.timestamp).key_id
        == OpeningKey(key).public.key_id
    )
    bad = authority.issue("orders", key.public_key(), **{other: True})
    with pytest.raises(ConfigError, match=r"CN=orders is not for key(Agreement|Encipherment)"):
        RecipientKey.from_pem(bad, roots=authority.pem, clock=NOW.timestamp)


def test_a_certificate_leads_to_a_root_that_was_given():
    authority, other = Authority(), Authority()
    below = authority.authority("below")
    key = X25519PrivateKey.generate().public_key()
    leaf = below.issue("orders", key, key_agreement=True)
    RecipientKey.from_pem(leaf + below.pem, roots=authority.pem, clock=NOW.timestamp)
    sibling = below.issue("payments", key, key_agreement=True)
    for chain, roots in ((leaf, authority.pem), (leaf + below.pem, other.pem), (leaf, sibling)):
        with pytest.raises(ConfigError, match="does not lead to a root"):
            RecipientKey.from_pem(chain, roots=roots, clock=NOW.timestamp)
    # No authority: trusted as it lies there.
    assert RecipientKey.from_pem(leaf, clock=NOW.timestamp).name == "CN=orders"


def test_a_certificate_that_is_no_authority_vouches_for_nobody():
    authority = Authority()
    signer = ec.generate_private_key(ec.SECP256R1())
    holder = authority.issue("holder", signer.public_key(), key_agreement=True)
    forged = certificate_of(
        "orders", "holder", X25519PrivateKey.generate().public_key(), signer, usage(key_agreement=True)
    )
    with pytest.raises(ConfigError, match="does not lead to a root"):
        RecipientKey.from_pem(forged + holder, roots=authority.pem, clock=NOW.timestamp)


def test_a_certificate_wraps_while_it_is_valid_and_opens_for_ever():
    authority = Authority()
    key = OpeningKey.generate("x25519")
    public = serialization.load_pem_public_key(key.public.to_pem())
    pem = authority.issue("orders", public, key_agreement=True)
    late, early = NOW + dt.timedelta(days=40), NOW - dt.timedelta(days=40)
    for at, when in ((late, "has expired"), (early, "is not valid yet")):
        with pytest.raises(ConfigError, match=when):
            RecipientKey.from_pem(pem, clock=at.timestamp)
    recipient = RecipientKey.from_pem(pem, clock=NOW.timestamp)
    moment = [NOW.timestamp()]
    provider = PublicKeyRecipients([recipient], open_with=[key], clock=lambda: moment[0])
    made = provider.generate(CONTEXT)
    for at, when in ((late, "has expired"), (early, "is not valid yet")):
        moment[0] = at.timestamp()
        with pytest.raises(KeyRefused, match=f"CN=orders {when}"):
            provider.generate(CONTEXT)
        assert provider.unwrap(made.recipients, CONTEXT) == made.data_key


def test_a_certificate_and_its_bare_key_are_the_same_recipient():
    key = X25519PrivateKey.generate()
    pem = Authority().issue("orders", key.public_key(), key_agreement=True)
    certificate = x509.load_pem_x509_certificate(pem)
    recipient = RecipientKey.from_pem(pem, clock=NOW.timestamp)
    assert recipient == OpeningKey(key).public
    assert fingerprint(certificate.public_key()) == recipient.fingerprint
