"""X.509 identities that sign, and who trusts them: SPEC.md 7.1 and 7.2."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from postseal.core import (
    ConfigError,
    Ed25519Key,
    KeyRefused,
    KeyRing,
    KeyUnavailable,
    Origin,
    Refused,
    Sealer,
    Verdict,
    X509Key,
    X509Roots,
)
from postseal.core.crypto import fingerprint, sha256
from postseal.core.wire import Credential, decode
from tests.core.kit import HERE, SENDER, Clock, CountedKeys, Party, local_keys, policy
from tests.core.pki import CLIENT, DAY, NOW, SERVER, Ca, new_key, pem, private_pem

KINDS = ["ed25519", "es256"]
FORMS = ["privacy", "integrity"]
NAMES = {SENDER: ["CN=billing-api", "O=Shop"]}
SUBJECT = "O=Shop,CN=billing-api"


class World:
    """A root, an authority below it, a producer with a certificate, and a consumer that trusts the root."""

    def __init__(
        self, form: str = "privacy", kind: str = "es256", *, carry: bool = True, deep: bool = True, **roots
    ) -> None:
        self.clock = Clock(int(NOW.timestamp() * 1000))
        self.root = Ca()
        self.ca = Ca("CN=issuing", self.root) if deep else self.root
        self.between = [self.ca.certificate] if deep else []
        self.private = new_key(kind)
        self.form = form
        self.keys = CountedKeys(local_keys())
        self.leaf = self.ca.certify(SUBJECT, self.private)
        self.carry = carry
        roots.setdefault("known", b"" if carry else pem(self.leaf, *self.between))
        self.roots = self.trusting(**roots)
        self.consumer = self.party(self.roots)

    def trusting(self, **options) -> X509Roots:
        options = {
            "roots": pem(self.root.certificate),
            "senders": NAMES,
            "clock": self.clock.seconds,
        } | options
        return X509Roots("shop", **options)

    def party(self, key) -> Party:
        return Party(
            policy(f"{self.form}-hmac"),
            keys=self.keys,
            rings={"hmac": KeyRing([key], clock=self.clock.seconds)},
            clock=self.clock,
        )

    def key(self, leaf: x509.Certificate | None = None, private=None, **options) -> X509Key:
        options = {"senders": [SENDER], "carry": self.carry, "clock": self.clock.seconds} | options
        return X509Key(
            "billing-2026",
            certificate=pem(leaf or self.leaf, *self.between),
            private_key=private or self.private,
            **options,
        )

    def seal(self, leaf: x509.Certificate | None = None, private=None, **options) -> bytes:
        return self.party(self.key(leaf, private)).seal(b"x", destination=HERE, **options)

    def as_stranger(self, *chain: x509.Certificate, private=None, sender: str = SENDER) -> bytes:
        """Seal as who does not look at what his certificate is for."""
        private = private or self.private
        kind = Ed25519Key if "Ed25519" in type(private).__name__ else _es256()
        signer = kind("k", private_key=private, senders=[sender])
        ders = [pem_to_der(one) for one in chain]
        signer.kid, signer.credential = sha256(ders[0]), Credential.chain(ders).encode()
        party = Party(
            policy(f"{self.form}-hmac"),
            sender=sender,
            keys=self.keys,
            rings={"hmac": KeyRing([signer])},
            clock=self.clock,
        )
        return party.seal(b"x", destination=HERE)

    def open(self, envelope: bytes):
        return self.consumer.open(envelope, destination=HERE)

    def refusal(self, envelope: bytes) -> Verdict:
        for verb in (self.consumer.sealer.verify, self.consumer.open):
            with pytest.raises(Refused) as refused:
                verb(envelope, destination=HERE)
        return refused.value.verdict


def _es256():
    from postseal.core import Es256Key

    return Es256Key


def pem_to_der(one: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return one.public_bytes(Encoding.DER)


# -- what verifies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("carry", [True, False], ids=["carried", "known"])
@pytest.mark.parametrize("deep", [True, False], ids=["chain", "alone"])
def test_who_trusts_the_root_verifies_and_holds_no_secret(form, kind, carry, deep):
    """A6: proof of origin; the consumer cannot make one."""
    world = World(form, kind, carry=carry, deep=deep)
    producer = world.party(world.key())
    for index in range(4):
        envelope = producer.seal(f"{index}".encode(), destination=HERE)
        opened = world.open(envelope)
        assert (opened.body, opened.sender, opened.origin) == (f"{index}".encode(), SENDER, Origin.SENDER)
        assert (decode(envelope).credential is not None) is carry
    assert producer.open(envelope, destination=HERE).body == b"3"
    with pytest.raises(ConfigError, match="only verifies"):
        world.consumer.seal(b"x", destination=HERE)


def test_a_chain_is_looked_at_once_and_again_after_a_while(monkeypatch):
    from postseal.core import certificates

    counted = []
    check = certificates.check_chain
    monkeypatch.setattr(certificates, "check_chain", lambda *args: counted.append(1) or check(*args))
    world = World()
    producer = world.party(world.key())
    for _ in range(30):
        world.open(producer.seal(b"x", destination=HERE))
    assert len(counted) == 1
    world.clock.ms += 301_000
    world.open(producer.seal(b"x", destination=HERE))
    world.open(producer.seal(b"x", destination=HERE))
    assert len(counted) == 2


def test_one_pem_pair_is_a_tls_client_and_a_signer(tmp_path):
    """A12: the X.509 identity used for TLS is the signer; and it is not asked for anything that TLS does not ask."""
    world = World()
    server_key = new_key()
    server = world.ca.certify(
        "CN=server", server_key, uses=[SERVER], alternatives=[x509.DNSName("localhost")]
    )
    files = {}
    for name, data in {
        "client.pem": pem(world.leaf, world.ca.certificate),
        "client.key": private_pem(world.private),
        "server.pem": pem(server, world.ca.certificate),
        "server.key": private_pem(server_key),
        "root.pem": pem(world.root.certificate),
    }.items():
        files[name] = tmp_path / name
        files[name].write_bytes(data)
    contexts = []
    for side, purpose in (("server", ssl.PROTOCOL_TLS_SERVER), ("client", ssl.PROTOCOL_TLS_CLIENT)):
        context = ssl.SSLContext(purpose)
        context.load_verify_locations(files["root.pem"])
        context.load_cert_chain(files[f"{side}.pem"], files[f"{side}.key"])
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags = ssl.VerifyFlags.VERIFY_DEFAULT
        contexts.append(context)
    ins, outs = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = contexts[0].wrap_bio(ins, outs, server_side=True)
    asking = contexts[1].wrap_bio(outs, ins, server_hostname="localhost")
    done = set()
    try:
        for _ in range(10):
            for side in (asking, serving):
                try:
                    side.do_handshake()
                    done.add(side)
                except ssl.SSLWantReadError:
                    pass
    except ssl.SSLCertVerificationError:
        assert (
            NOW.timestamp() + 10 * 86_400 < __import__("time").time()
        )  # the certificates of this test have expired
    else:
        assert done == {asking, serving}
        assert dict(serving.getpeercert()["subject"][1]) == {"commonName": "billing-api"}
    key = X509Key(
        "billing",
        certificate=files["client.pem"].read_bytes(),
        private_key=files["client.key"].read_bytes(),
        senders=[SENDER],
        clock=world.clock.seconds,
    )
    assert world.open(world.party(key).seal(b"x", destination=HERE)).body == b"x"


def test_a_gateway_verifies_certificates_with_no_right_to_open():
    """B6."""
    world = World()
    gateway = Sealer(
        sender="gateway",
        policies=[policy("privacy-hmac")],
        signers={"hmac": KeyRing([world.roots], clock=world.clock.seconds)},
        verify_only=True,
        clock=world.clock,
    )
    assert gateway.verify(world.seal(), destination=HERE).sender == SENDER
    with pytest.raises(ConfigError, match="private key"):
        Sealer(
            sender="gateway",
            policies=[policy("privacy-hmac")],
            signers={"hmac": KeyRing([world.key()])},
            verify_only=True,
        )


@pytest.mark.parametrize(
    "names", [["URI:spiffe://shop/billing"], ["DNS:billing.shop.example", "CN=b"], ["EMAIL:b@shop.example"]]
)
def test_a_sender_is_known_by_alternative_names_too(names):
    world = World(senders={SENDER: names})
    alternatives = [
        x509.UniformResourceIdentifier("spiffe://shop/billing"),
        x509.DNSName("billing.shop.example"),
        x509.RFC822Name("b@shop.example"),
    ]
    assert (
        world.open(world.seal(world.ca.certify("CN=b", world.private, alternatives=alternatives))).body
        == b"x"
    )
    assert world.refusal(world.seal()) is Verdict.UNKNOWN_SENDER


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_another_root_an_old_or_early_certificate_and_a_missing_link_are_refused():
    world = World()
    other = Ca()  # of the same name
    private = world.private
    for chain in (
        [other.certify(SUBJECT, private)],
        [Ca("CN=issuing", other).certify(SUBJECT, private), world.ca.certificate],
        [world.leaf],  # its issuer is missing
        [world.ca.certify(SUBJECT, private, ends=NOW - DAY), world.ca.certificate],
        [world.ca.certify(SUBJECT, private, begins=NOW + DAY), world.ca.certificate],
    ):
        assert world.refusal(world.as_stranger(*chain)) is Verdict.UNKNOWN_KEY
    assert world.keys.unwrapped == 0


def test_a_certificate_for_something_else_is_refused_by_the_consumer():
    """A12: key usage is checked, on both sides."""
    world = World()
    private = world.private
    for options in (
        {"used": {"key_agreement": True}},
        {"used": {"key_encipherment": True}},
        {"uses": [SERVER]},
        {"uses": [ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.TIME_STAMPING]},
        {"authority": True, "used": {"digital_signature": True, "key_cert_sign": True}},
        {"extra": [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)]},
    ):
        leaf = world.ca.certify(SUBJECT, private, **options)
        assert world.refusal(world.as_stranger(leaf, world.ca.certificate)) is Verdict.UNKNOWN_KEY, options
    for options in (
        {"used": {}},
        {"uses": None},
        {"uses": [SERVER, CLIENT]},
        {"uses": [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]},
    ):
        leaf = world.ca.certify(SUBJECT, private, **options)
        assert world.open(world.as_stranger(leaf, world.ca.certificate)).body == b"x", options


def test_who_holds_a_certificate_issues_none():
    """Basic constraints, and the key usage of authorities."""
    world = World()
    for used, authority in (({"digital_signature": True}, False), ({"digital_signature": True}, True)):
        middle = Ca("CN=middle")
        middle.certificate = world.ca.certify(
            middle.name, middle.key, used=used, authority=authority, uses=None
        )
        private = new_key()
        chain = middle.certify(SUBJECT, private), middle.certificate, world.ca.certificate
        assert world.refusal(world.as_stranger(*chain, private=private)) is Verdict.UNKNOWN_KEY


@pytest.mark.parametrize("kind", ["rsa", "p384"])
def test_a_key_of_another_kind_is_refused(kind):
    world = World()
    leaf = world.ca.certify(SUBJECT, new_key(kind))
    assert world.refusal(world.as_stranger(leaf, world.ca.certificate)) is Verdict.UNKNOWN_KEY


def test_the_right_issuer_and_another_name_is_refused():
    """E3: right key and wrong sender."""
    world = World(senders={SENDER: NAMES[SENDER], "shop-web": ["CN=shop-web", "O=Shop"]})
    private = world.private
    for subject in (
        "O=Shop,CN=billing-apis",
        "O=Shop",
        "CN=billing-api",
        "O=shop,CN=billing-api",
        "OU=Shop,CN=billing-api",
    ):
        leaf = world.ca.certify(subject, private)
        assert world.refusal(world.as_stranger(leaf, world.ca.certificate)) is Verdict.UNKNOWN_SENDER, subject
    web = world.ca.certify("O=Shop,CN=shop-web", private)
    assert world.refusal(world.as_stranger(web, world.ca.certificate)) is Verdict.UNKNOWN_SENDER
    assert world.open(world.as_stranger(web, world.ca.certificate, sender="shop-web")).sender == "shop-web"
    assert (
        world.refusal(world.as_stranger(world.leaf, world.ca.certificate, sender="shop-web"))
        is Verdict.UNKNOWN_SENDER
    )


def test_a_message_opens_while_its_certificate_is_valid_and_not_later():
    """On the short way, too."""
    world = World()
    leaf = world.ca.certify(SUBJECT, world.private, ends=NOW + DAY / 24)
    producer = world.party(world.key(leaf))
    envelopes = [producer.seal(b"x", destination=HERE) for _ in range(3)]
    world.open(envelopes[0])
    world.clock.ms += 3_590_000
    world.open(envelopes[0])
    world.open(envelopes[1])
    world.clock.ms += 15_000
    assert world.refusal(envelopes[2]) is Verdict.UNKNOWN_KEY
    with pytest.raises(KeyRefused, match="expired"):
        producer.seal(b"x", destination=HERE)


def test_a_certificate_that_is_not_the_signers_is_refused():
    world = World()
    other = new_key()
    assert world.refusal(world.as_stranger(world.leaf, world.ca.certificate, private=other)) is Verdict.FORGED
    genuine = world.seal()
    credential = decode(genuine).credential
    swapped = Credential.chain(
        [pem_to_der(world.ca.certify(SUBJECT, other)), pem_to_der(world.ca.certificate)]
    )
    assert world.refusal(genuine.replace(credential.encode(), swapped.encode())) is Verdict.UNKNOWN_KEY
    world.consumer = world.party(world.trusting())
    assert world.refusal(genuine.replace(credential.encode(), b"\xa0")) is Verdict.UNKNOWN_KEY


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_stands_for_a_certificate_is_refused_and_nothing_else_is_raised(world_of_one, data):
    world, genuine = world_of_one
    der = bytearray(pem_to_der(world.leaf))
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] ^= data.draw(st.integers(1, 255))
    first = data.draw(st.one_of(st.just(bytes(der)), st.binary(min_size=1, max_size=60)))
    assume(first != pem_to_der(world.leaf))
    credential = Credential.chain([first, pem_to_der(world.ca.certificate)])
    kid = decode(genuine).outer.key_id
    forged = genuine.replace(decode(genuine).credential.encode(), credential.encode()).replace(
        kid, sha256(first)
    )
    with pytest.raises(Refused):
        world.trusting().vouch(sha256(first), credential) if data.draw(st.booleans()) else world.open(forged)


@pytest.fixture(scope="module")
def world_of_one():
    world = World()
    return world, world.seal()


# -- revocation --------------------------------------------------------------------------------------------------------


def lists_of(world: World, *revoked, **options) -> list[bytes]:
    return [world.root.revocation_list(), world.ca.revocation_list(*revoked, **options)]


def test_a_revoked_certificate_is_refused_and_one_that_is_not_verifies():
    world = World()
    revoked = world.ca.certify(SUBJECT, world.private)
    world.consumer = world.party(world.trusting(lists=lists_of(world, revoked)))
    assert world.refusal(world.seal(revoked)) is Verdict.UNKNOWN_KEY
    assert world.open(world.seal()).body == b"x"


def test_a_revoked_authority_takes_all_with_it():
    world = World()
    lists = [world.root.revocation_list(world.ca.certificate), world.ca.revocation_list()]
    world.consumer = world.party(world.trusting(lists=lists))
    assert world.refusal(world.seal()) is Verdict.UNKNOWN_KEY


@pytest.mark.parametrize(
    "wrong",
    [
        lambda w: lists_of(w, due=NOW - DAY / 2),
        lambda w: lists_of(w, updated=NOW + DAY / 2),
        lambda w: lists_of(w, by=Ca()),
        lambda w: [w.ca.revocation_list()],
        lambda w: [w.root.revocation_list()],
        lambda w: [Ca().revocation_list(), Ca("CN=issuing").revocation_list()],
    ],
    ids=["stale", "future", "by another", "none of the root", "none of the authority", "of namesakes"],
)
def test_where_nobody_can_tell_the_message_is_kept_or_handed_on_as_asked_for(wrong):
    """A stale list is nothing that the message could help: it is not settled over it."""
    world = World()
    lists = wrong(world)
    world.consumer = world.party(world.trusting(lists=lists))
    with pytest.raises(KeyUnavailable, match="revoked"):
        world.open(world.seal())
    assert world.consumer.events == []
    world.consumer = world.party(world.trusting(lists=lists, on_stale="accept"))
    assert world.open(world.seal()).body == b"x"


def test_a_stale_list_still_revokes():
    world = World()
    world.consumer = world.party(
        world.trusting(lists=lists_of(world, world.leaf, due=NOW - DAY / 2), on_stale="accept")
    )
    assert world.refusal(world.seal()) is Verdict.UNKNOWN_KEY


def test_an_authority_that_may_not_sign_lists_revokes_nothing_and_clears_nothing():
    world = World()
    world.ca.certificate = world.root.certify(
        world.ca.name, world.ca.key, authority=True, used={"key_cert_sign": True}, uses=None
    )
    world.between = [world.ca.certificate]
    world.consumer = world.party(world.trusting(lists=lists_of(world)))
    with pytest.raises(KeyUnavailable):
        world.open(world.seal())


class Fetched:
    """What fetches lists or responses, and counts."""

    def __init__(self, what) -> None:
        self.what = what
        self.calls = 0

    def __call__(self, *about):
        self.calls += 1
        if isinstance(self.what, Exception):
            raise self.what
        return self.what(*about) if callable(self.what) else self.what


@pytest.mark.parametrize("form", FORMS)
def test_lists_are_fetched_once_in_a_while_and_a_revocation_takes_effect_within_it(form):
    """A13: the window is max_age."""
    world = World(form)
    fetch = Fetched(lists_of(world))
    world.consumer = world.party(world.trusting(lists=fetch))
    producer = world.party(world.key())
    for _ in range(10):
        world.open(producer.seal(b"x", destination=HERE))
    assert fetch.calls == 1
    fetch.what = lists_of(world, world.leaf)
    world.clock.ms += 301_000
    assert world.refusal(producer.seal(b"x", destination=HERE)) is Verdict.UNKNOWN_KEY
    assert fetch.calls == 2


def test_lists_that_cannot_be_fetched_serve_on_until_they_are_too_old():
    world = World()
    fetch = Fetched(OSError("away"))
    world.consumer = world.party(world.trusting(lists=fetch))
    for _ in range(2):
        with pytest.raises(KeyUnavailable):
            world.open(world.seal())
    fetch.what = lists_of(world)
    assert world.open(world.seal()).body == b"x"
    fetch.what = OSError("away")
    world.clock.ms += 600_000
    assert world.open(world.seal()).body == b"x"
    world.clock.ms += 86_400_000
    with pytest.raises(KeyUnavailable):
        world.open(world.seal())


def test_what_is_fetched_blocks_no_loop_and_is_not_fetched_at_hand():
    import threading

    world = World()
    threads = []

    def fetch():
        threads.append(threading.current_thread())
        return lists_of(world)

    world.consumer = world.party(world.trusting(lists=fetch))
    envelope = world.seal()
    assert world.consumer.sealer.open_cached(envelope, destination=HERE) is None
    assert threads == []

    async def main():
        return await asyncio.gather(
            *(world.consumer.sealer.aopen(envelope, destination=HERE) for _ in range(5))
        )

    assert [opened.body for opened in asyncio.run(main())] == [b"x"] * 5
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


GOOD, REVOKED, UNKNOWN = ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED, ocsp.OCSPCertStatus.UNKNOWN


def responder_of(world: World, *, uses=(ExtendedKeyUsageOID.OCSP_SIGNING,), by: Ca | None = None, **options):
    key = new_key()
    return (by or world.ca).certify("CN=responder", key, uses=uses, **options), key


@pytest.mark.parametrize("hashed", [hashes.SHA1(), hashes.SHA256()], ids=["sha1", "sha256"])  # noqa: S303
@pytest.mark.parametrize("delegated", [True, False])
def test_ocsp_tells_good_from_revoked(hashed, delegated):
    world = World()
    revoked = world.ca.certify(SUBJECT, world.private)
    responder = responder_of(world) if delegated else None

    def fetch(leaf, issuer):
        assert issuer == world.ca.certificate
        return world.ca.response(
            leaf, REVOKED if leaf == revoked else GOOD, hashed=hashed, responder=responder
        )

    fetched = Fetched(fetch)
    world.consumer = world.party(world.trusting(ocsp=fetched))
    assert world.open(world.seal()).body == b"x"
    assert world.open(world.seal()).body == b"x"
    assert fetched.calls == 1
    assert world.refusal(world.seal(revoked)) is Verdict.UNKNOWN_KEY


@pytest.mark.parametrize(
    "wrong",
    [
        lambda w, leaf: w.ca.response(leaf, UNKNOWN),
        lambda w, leaf: w.ca.response(leaf, due=NOW - DAY / 2),
        lambda w, leaf: w.ca.response(leaf, due=None),
        lambda w, leaf: w.ca.response(leaf, updated=NOW + DAY / 2),
        lambda w, leaf: w.ca.response(w.ca.certify(SUBJECT, w.private)),
        lambda w, leaf: w.root.response(leaf),
        lambda w, leaf: Ca("CN=issuing").response(leaf),
        lambda w, leaf: w.ca.response(leaf, responder=responder_of(w, uses=[CLIENT])),
        lambda w, leaf: w.ca.response(leaf, responder=responder_of(w, uses=None)),
        lambda w, leaf: w.ca.response(leaf, responder=responder_of(w, by=Ca("CN=issuing"))),
        lambda w, leaf: w.ca.response(leaf, responder=responder_of(w, ends=NOW - DAY)),
        lambda w, leaf: ocsp.OCSPResponseBuilder.build_unsuccessful(
            ocsp.OCSPResponseStatus.TRY_LATER
        ).public_bytes(
            __import__("cryptography.hazmat.primitives.serialization", fromlist=["Encoding"]).Encoding.DER
        ),
        lambda w, leaf: b"no response",
    ],
    ids=[
        "unknown",
        "stale",
        "no end",
        "future",
        "another certificate",
        "another issuer",
        "a namesake",
        "no responder",
        "no usage",
        "another's responder",
        "an old responder",
        "unsuccessful",
        "garbage",
    ],
)
def test_a_response_that_tells_nothing_keeps_the_message(wrong):
    world = World()
    world.consumer = world.party(world.trusting(ocsp=lambda leaf, _: wrong(world, leaf)))
    with pytest.raises(KeyUnavailable):
        world.open(world.seal())
    world.consumer = world.party(world.trusting(ocsp=lambda leaf, _: wrong(world, leaf), on_stale="accept"))
    assert world.open(world.seal()).body == b"x"


def test_a_forged_certificate_makes_nobody_ask():
    world = World()
    fetched = Fetched(OSError("never"))
    world.consumer = world.party(world.trusting(ocsp=fetched, lists=fetched))
    other = Ca()
    assert world.refusal(world.as_stranger(other.certify(SUBJECT, world.private))) is Verdict.UNKNOWN_KEY
    assert (
        world.refusal(world.as_stranger(world.ca.certify("CN=x", world.private), world.ca.certificate))
        is Verdict.UNKNOWN_SENDER
    )
    assert fetched.calls == 0


# -- configuration -----------------------------------------------------------------------------------------------------


def _with(**leaf):
    def make():
        world = World()
        world.key(world.ca.certify(SUBJECT, world.private, **leaf))

    return make


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_with(used={"key_agreement": True}), "not for digitalSignature"),
        (_with(uses=[SERVER]), "not for clients"),
        (_with(authority=True, used={"digital_signature": True}), "authority"),
        (_with(ends=NOW - DAY), "expired"),
        (_with(begins=NOW + DAY), "not valid yet"),
        (lambda: World().key(private=new_key()), "another key"),
        (lambda: World().key(private=b"-----BEGIN PRIVATE KEY-----\nAA=="), "cannot be read"),
        (lambda: World().key(private=new_key("rsa")), "no P-256 key"),
        (lambda: World().key(private=new_key("ed25519")), "another key"),
        (lambda: World().key(senders=[]), "empty list"),
        (lambda: World().trusting(senders={}), "empty list"),
        (lambda: World().trusting(senders=[SENDER]), "how its certificate is named"),
        (lambda: World().trusting(senders={SENDER: []}), "list of names"),
        (lambda: World().trusting(senders={SENDER: "CN=x"}), "list of names"),
        (lambda: World().trusting(senders={SENDER: ["XX=x"]}), "begin with"),
        (lambda: World().trusting(senders={SENDER: ["CN="]}), "begin with"),
        (lambda: World().trusting(senders={SENDER: ["IP:1.2.3.4"]}), "begin with"),
        (lambda: World().trusting(roots=b"nothing"), "no certificate"),
        (lambda: World().trusting(roots=pem(World().leaf)), "no authority"),
        (lambda: World().trusting(roots=pem(Ca(kind="ed25519").certificate)), "neither an RSA nor an ECDSA"),
        (lambda: World().trusting(roots=pem(Ca(crl_sign=True).certificate)), "keyCertSign"),
        (lambda: World().trusting(on_stale="acept"), "did you mean 'accept'"),
        (lambda: World().trusting(max_age=0), "max_age"),
        (lambda: World().trusting(lists=b"-----BEGIN X509 CRL-----"), "list of files"),
        (lambda: World().trusting(lists=[b"-----BEGIN X509 CRL-----"]), "lists"),
        (
            lambda: World().trusting(lists=[Ca().revocation_list(extra=[(x509.DeltaCRLIndicator(1), True)])]),
            "critical",
        ),
    ],
)
def test_what_cannot_sign_or_be_trusted_is_a_config_error_at_load(make, words):
    """A12: a wrong key usage is refused when it is loaded."""
    with pytest.raises(ConfigError, match=words):
        make()


def test_a_private_key_with_a_password_is_read():
    from cryptography.hazmat.primitives import serialization

    world = World()
    sealed = world.private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    assert world.key(private=sealed, password=b"secret").can_sign
    for password in (None, b"wrong"):
        with pytest.raises(ConfigError, match="password") as error:
            world.key(private=sealed, password=password)
        assert "secret" not in str(error.value)


def test_a_certificate_of_a_key_to_open_with_is_refused():
    """B1."""
    world = World()

    class Opener:
        def __init__(self) -> None:
            inner = local_keys()
            self.generate, self.wrap, self.unwrap = inner.generate, inner.wrap, inner.unwrap
            self.public_key_fingerprints = frozenset({fingerprint(world.private.public_key())})

    for key in (world.key(), World(known=pem(world.leaf)).roots):
        with pytest.raises(ConfigError, match="also a key to open with"):
            Party(policy("privacy-hmac"), keys=Opener(), rings={"hmac": KeyRing([key])})
