"""Certificates, authorities and keys that delegate are rotated while messages are under way: nothing is refused that should not be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from postseal.core import (
    ConfigError,
    DelegatedKey,
    Ed25519Key,
    Es256Key,
    KeyRefused,
    KeyRing,
    OpeningKey,
    Origin,
    PublicKeyRecipients,
    Refused,
    Sealer,
    Verdict,
    X509Key,
    X509Roots,
)
from tests.core.kit import HERE, SENDER, Clock, CountedKeys, Party, local_keys, policy
from tests.core.pki import DAY, NOW, Ca, new_key, pem, private_pem

FORMS = ["privacy", "integrity"]
NAMES = {SENDER: ["CN=billing-api", "O=Shop"], "shop-web": ["CN=shop-web", "O=Shop"]}


class World:
    """A producer and a consumer with a ring each, which rotate while threads seal and open."""

    def __init__(self, form: str, sealing, opening, *, keys=None) -> None:
        self.clock = Clock(int(NOW.timestamp() * 1000))
        self.rings = [KeyRing(found(self.clock), clock=self.clock.seconds) for found in (sealing, opening)]
        provider = keys or CountedKeys(local_keys())
        self.producer, self.consumer = (
            Party(policy(f"{form}-hmac"), keys=provider, rings={"hmac": ring}, clock=self.clock)
            for ring in self.rings
        )

    def rotate(self, sealing=None, opening=None) -> None:
        for ring, keys in zip(self.rings, (sealing, opening), strict=True):
            if keys is not None:
                ring.replace(keys(self.clock))

    def seal(self) -> bytes:
        return self.producer.seal(b"x", destination=HERE)

    def verdict(self, envelope: bytes) -> Verdict:
        with pytest.raises(Refused) as refused:
            self.consumer.open(envelope, destination=HERE)
        return refused.value.verdict

    def under_load(self, steps: list[Callable[[], None]]) -> int:
        """Do *steps* while four threads seal and open; return how many messages they were, none of them refused."""
        ended, failures, counts = threading.Event(), [], []

        def work() -> None:
            count = 0
            try:
                while not ended.is_set():
                    opened = self.consumer.open(self.seal(), destination=HERE)
                    assert (opened.body, opened.sender, opened.origin) == (b"x", SENDER, Origin.SENDER)
                    count += 1
            except BaseException as error:  # noqa: BLE001 - told below
                failures.append(error)
            counts.append(count)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for step in steps:
            time.sleep(0.01)
            step()
        time.sleep(0.01)
        ended.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert self.consumer.events == []
        return sum(counts)


@pytest.fixture(scope="module")
def ca():
    return Ca("CN=root,O=Shop")


def x509_key(ca: Ca, name: str, subject: str = "CN=billing-api,O=Shop", kind: str = "es256", **options):
    """Return what makes the key of a new certificate, by a clock."""
    key = new_key(kind)
    certificate = ca.certify(subject, key)

    def make(clock: Clock) -> X509Key:
        return X509Key(
            name,
            certificate=pem(certificate),
            private_key=private_pem(key),
            senders=[SENDER],
            clock=clock.seconds,
            **options,
        )

    return make


def roots(name: str, *cas: Ca):
    def make(clock: Clock) -> X509Roots:
        return X509Roots(
            name, roots=pem(*(one.certificate for one in cas)), senders=NAMES, clock=clock.seconds
        )

    return make


def only(*makers):
    return lambda clock: [make(clock) for make in makers]


# -- certificates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_certificate_is_renewed_thirty_times_under_load_and_nothing_is_refused(form, ca):
    """A6, E4: consumers trust the authority, so they do nothing at all."""
    keys = [x509_key(ca, f"billing-{n}", kind=("es256", "ed25519")[n % 2]) for n in range(31)]
    world = World(form, only(keys[0]), only(roots("shop-ca", ca)))
    before = world.seal()
    steps = [lambda key=key: world.rotate(only(key)) for key in keys[1:]]
    assert world.under_load(steps) >= 30
    assert world.consumer.open(before, destination=HERE).body == b"x", "and what was sent before opens"


@pytest.mark.parametrize("form", FORMS)
def test_an_authority_is_replaced_under_load_and_nothing_is_refused_before_the_old_one_is_gone(form, ca):
    """A6, E3, E4: first consumers trust both, then producers change, then consumers forget the old one."""
    new = Ca("CN=root 2,O=Shop")
    old_key, new_key_ = x509_key(ca, "billing-1"), x509_key(new, "billing-2")
    world = World(form, only(old_key), only(roots("ca", ca)))
    before = world.seal()
    world.under_load(
        [
            lambda: world.rotate(opening=only(roots("ca", ca), roots("ca-2", new))),
            lambda: world.rotate(sealing=only(new_key_)),
        ]
    )
    assert world.consumer.open(before, destination=HERE).body == b"x"
    world.rotate(opening=only(roots("ca-2", new)))
    assert world.verdict(before) is Verdict.UNKNOWN_KEY
    assert world.consumer.open(world.seal(), destination=HERE).body == b"x"


@pytest.mark.parametrize("form", FORMS)
def test_from_plain_keys_to_certificates_to_delegation_under_load(form, ca):
    """A6, E4: each kind is pending at the consumer before the producer signs with it."""
    plain, root = new_key("ed25519"), new_key()

    def plain_key(part: str):
        given = {"private_key": plain} if part == "private" else {"public_key": plain.public_key()}
        return lambda _: Ed25519Key("plain", senders=[SENDER], **given)

    def delegated(part: str):
        given = {"private_key": root} if part == "private" else {"public_key": root.public_key()}
        return lambda clock: DelegatedKey(
            Es256Key("root", senders=[SENDER], **given), senders=[SENDER], clock=clock.seconds
        )

    certified = x509_key(ca, "billing-1")
    verifying = only(plain_key("public"), roots("ca", ca), delegated("public"))
    world = World(form, only(plain_key("private")), only(plain_key("public")))
    before = [world.seal()]
    world.under_load(
        [
            lambda: world.rotate(opening=verifying),
            lambda: world.rotate(sealing=only(certified)),
            lambda: before.append(world.seal()),
            lambda: world.rotate(sealing=only(delegated("private"))),
            lambda: before.append(world.seal()),
            lambda: world.rotate(sealing=only(certified, delegated("private"))),
        ]
    )
    for envelope in before:
        assert world.consumer.open(envelope, destination=HERE).body == b"x"
    world.rotate(opening=only(roots("ca", ca)))
    assert [world.verdict(envelope) for envelope in (before[0], before[2])] == [Verdict.UNKNOWN_KEY] * 2
    assert world.consumer.open(before[1], destination=HERE).body == b"x"


@pytest.mark.parametrize("form", FORMS)
def test_a_root_that_delegates_is_replaced_under_load(form):
    """A6, E4: the new one is trusted first; the short-lived keys of the old one go on to verify until it is taken away."""
    privates = [new_key("ed25519") for _ in range(4)]

    def delegated(number: int, part: str):
        private = privates[number]
        given = {"private_key": private} if part == "private" else {"public_key": private.public_key()}
        return lambda clock: DelegatedKey(
            Ed25519Key(f"root-{number}", senders=[SENDER], **given), senders=[SENDER], clock=clock.seconds
        )

    world = World(form, only(delegated(0, "private")), only(delegated(0, "public")))
    before = world.seal()
    everything = only(*(delegated(number, "public") for number in range(4)))
    steps: list[Callable[[], None]] = [lambda: world.rotate(opening=everything)]
    steps += [lambda n=n: world.rotate(sealing=only(delegated(n, "private"))) for n in range(1, 4)]
    world.under_load(steps)
    assert world.consumer.open(before, destination=HERE).body == b"x"
    world.rotate(opening=only(delegated(3, "public")))
    assert world.verdict(before) is Verdict.UNKNOWN_KEY


# -- what a rotation must not let in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_in_no_step_of_a_rotation_does_one_sender_pass_for_another(form, ca):
    """E3: a genuine certificate of another sender, an authority of the same name, a certificate that names nobody."""
    twin, new = Ca("CN=root,O=Shop"), Ca("CN=root 2,O=Shop")
    world = World(form, only(x509_key(ca, "billing-1")), only(roots("ca", ca)))
    forgers = {
        "another sender": (x509_key(ca, "x", "CN=shop-web,O=Shop"), Verdict.UNKNOWN_SENDER),
        "nobody": (x509_key(ca, "x", "CN=stranger,O=Shop"), Verdict.UNKNOWN_SENDER),
        "another authority of that name": (x509_key(twin, "x"), Verdict.UNKNOWN_KEY),
    }
    for opening in (
        only(roots("ca", ca)),
        only(roots("ca", ca), roots("ca-2", new)),
        only(roots("ca", ca, new)),
    ):
        world.rotate(opening=opening)
        for make, expected in forgers.values():
            thief = Party(
                policy(f"{form}-hmac"),
                keys=world.producer.keys,
                rings={"hmac": KeyRing([make(world.clock)])},
                clock=world.clock,
            )
            assert world.verdict(thief.seal(b"x", destination=HERE)) is expected
        assert world.consumer.open(world.seal(), destination=HERE).body == b"x"


def test_a_rotation_to_a_key_that_also_opens_is_no_rotation(ca):
    """B1: what was before goes on to sign."""
    key = new_key()
    certificate = ca.certify(
        "CN=billing-api,O=Shop", key, used={"digital_signature": True, "key_agreement": True}
    )
    keys = PublicKeyRecipients(
        [OpeningKey.from_pem(private_pem(key)).public], open_with=[OpeningKey.from_pem(private_pem(key))]
    )
    world = World("privacy", only(x509_key(ca, "billing-1")), only(roots("ca", ca)), keys=keys)

    def twofold(clock: Clock) -> X509Key:
        return X509Key(
            "billing-2",
            certificate=pem(certificate),
            private_key=private_pem(key),
            senders=[SENDER],
            clock=clock.seconds,
        )

    def delegated(clock: Clock) -> DelegatedKey:
        root = Es256Key("root", private_key=key, senders=[SENDER])
        return DelegatedKey(root, senders=[SENDER], clock=clock.seconds)

    for make in (twofold, delegated):
        with pytest.raises(ConfigError, match="two key pairs"):
            world.rotate(only(make))
        assert world.consumer.open(world.seal(), destination=HERE).body == b"x"


def test_a_gateway_verifies_through_a_rotation_without_any_secret(ca):
    """A6, B6: it has the authority's certificate alone, and could make no message."""
    world = World("privacy", only(x509_key(ca, "billing-1")), only(roots("ca", ca)))
    ring = KeyRing([roots("ca", ca)(world.clock)], clock=world.clock.seconds)
    gateway = Sealer(
        sender="gateway",
        policies=[policy("privacy-hmac")],
        signers={"hmac": ring},
        verify_only=True,
        clock=world.clock,
    )
    assert not ring.has_private
    for number in range(2, 6):
        assert gateway.verify(world.seal(), destination=HERE).sender == SENDER
        world.rotate(only(x509_key(ca, f"billing-{number}")))


def test_a_certificate_that_expired_signs_nothing_and_its_successor_does(ca):
    """E4: renewed too late, sealing says so and nothing that would be refused is sent."""
    world = World("privacy", only(x509_key(ca, "billing-1")), only(roots("ca", ca)))
    late = ca.certify("CN=billing-api,O=Shop", key := new_key(), ends=NOW + 9 * DAY)
    world.rotate(
        lambda clock: [
            X509Key(
                "billing-2", certificate=pem(late), private_key=key, senders=[SENDER], clock=clock.seconds
            )
        ]
    )
    world.seal()
    world.clock.ms += int((9 * DAY).total_seconds() * 1000) + 1000
    with pytest.raises(KeyRefused, match="has expired"):
        world.seal()
    world.rotate(only(x509_key(ca, "billing-3")))
    assert world.consumer.open(world.seal(), destination=HERE).body == b"x"
