"""Certificates and keys that delegate, as a policy file says them: A6, A12, B1, B6, E3, E4."""

from __future__ import annotations

import datetime as dt
import os
import threading
import time
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import boto3
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import ocsp
from moto import mock_aws

from postseal.core import (
    ConfigError,
    DelegatedKey,
    KeyRefused,
    KeyUnavailable,
    Origin,
    Refused,
    Sealer,
    Verdict,
    X509Key,
    X509Roots,
)
from postseal.core.config import PolicyFile
from postseal.core.errors import PolicyFileError
from postseal.core.providers import clients
from postseal.core.providers.revocations import ListsFrom, OcspFrom
from tests.core.key_vault import AnyCredential, KeyVaultDouble
from tests.core.kit import ED25519
from tests.core.pki import DAY, Ca, new_key, pem, private_pem

NOW = dt.datetime.now(dt.UTC)
HERE = "kafka:orders"
TEXT = """
sender = "billing-api"

[signers.shop]
algorithm = "{algorithm}"
keys = [{keys}]

[[policy]]
name = "orders"
destinations = ["kafka:orders"]
protection = "integrity"
sign = "shop"
senders = ["billing-api", "shop-web"]
"""
SIGNS = '{ id = "billing-2026", certificate = "billing.crt", private_key = { file = "billing.key" }, senders = ["billing-api"]MORE }'
TRUSTS = '{ id = "shop-ca", roots = "ca.pem", names = { billing-api = ["CN=billing-api", "O=Shop"] }MORE }'


class World:
    """A folder with the files that a policy file speaks of."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.ca = Ca("CN=root,O=Shop", now=NOW)
        self.certificate = self.issue("CN=billing-api,O=Shop")

    def issue(self, subject: str, kind: str = "es256", **options):
        key = new_key(kind)
        made = self.ca.certify(subject, key, begins=NOW - DAY, ends=NOW + DAY, **options)
        self.write("billing.crt", pem(made))
        self.write("billing.key", private_pem(key))
        self.write("ca.pem", pem(self.ca.certificate))
        return made

    def write(self, name: str, content: bytes) -> None:
        (self.folder / name).touch(0o600)
        (self.folder / name).write_bytes(content)

    def revocation_list(self, *revoked) -> bytes:
        return self.ca.revocation_list(*revoked, updated=NOW - DAY, due=NOW + DAY)

    def file(self, *keys: str, algorithm: str = "x509", more: str = "", name: str | None = None):
        path = self.folder / (name or f"{uuid.uuid4().hex}.toml")
        joined = ", ".join(keys).replace("MORE", more)
        path.write_text(TEXT.format(algorithm=algorithm, keys=joined))
        return path

    def sealer(self, *keys: str, algorithm: str = "x509", more: str = "", **options) -> Sealer:
        return Sealer.from_file(self.file(*keys, algorithm=algorithm, more=more), **options)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def mistakes(world, *keys: str, **options) -> str:
    with pytest.raises(PolicyFileError) as error:
        PolicyFile.read(world.file(*keys, **options)).resolve()
    assert "BEGIN" not in str(error.value)
    return str(error.value)


# -- certificates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["es256", "ed25519"])
def test_a_certificate_signs_and_who_trusts_its_authority_verifies(world, kind):
    """A6, A12: the producer has the pair of a TLS client, the consumer the authority's certificate."""
    world.issue("CN=billing-api,O=Shop", kind)
    envelope = world.sealer(SIGNS).seal(b"x", destination=HERE)
    opened = world.sealer(TRUSTS, sender="warehouse").open(envelope, destination=HERE)
    assert (opened.sender, opened.origin) == ("billing-api", Origin.SENDER)
    gateway = world.sealer(TRUSTS, sender="gateway", verify_only=True)
    assert gateway.verify(envelope, destination=HERE).sender == "billing-api"
    both = world.sealer(SIGNS, TRUSTS)
    assert both.open(both.seal(b"x", destination=HERE), destination=HERE).body == b"x"


def test_a_certificate_with_other_names_or_of_another_authority_is_nobodys(world):
    """E3."""
    consumer = world.sealer(TRUSTS, sender="warehouse")
    world.issue("CN=billing-api,O=Other")
    assert verdict(consumer, world.sealer(SIGNS).seal(b"x", destination=HERE)) is Verdict.UNKNOWN_SENDER
    world.ca = Ca("CN=root,O=Shop", now=NOW)
    world.issue("CN=billing-api,O=Shop")
    assert verdict(consumer, world.sealer(SIGNS).seal(b"x", destination=HERE)) is Verdict.UNKNOWN_KEY


def verdict(sealer, envelope) -> Verdict:
    with pytest.raises(Refused) as refused:
        sealer.open(envelope, destination=HERE)
    return refused.value.verdict


def test_the_chain_may_stay_at_home(world):
    envelope = world.sealer(SIGNS, more=", carry = false").seal(b"x", destination=HERE)
    assert len(envelope) < 400
    consumer = world.sealer(TRUSTS, more=', known = "billing.crt"', sender="warehouse")
    assert consumer.open(envelope, destination=HERE).body == b"x"
    assert verdict(world.sealer(TRUSTS, sender="warehouse"), envelope) is Verdict.UNKNOWN_KEY


def test_a_certificate_on_a_list_is_refused_and_a_list_that_changes_is_read_again(world):
    """A13: within `max_age`, without a reload."""
    world.write("shop.crl", world.revocation_list())
    envelope = world.sealer(SIGNS).seal(b"x", destination=HERE)
    consumer = world.sealer(TRUSTS, more=', lists = ["shop.crl"], max_age = "1ms"', sender="warehouse")
    assert consumer.open(envelope, destination=HERE).body == b"x"
    world.write("shop.crl", world.revocation_list(world.certificate))
    time.sleep(0.01)
    assert verdict(consumer, envelope) is Verdict.UNKNOWN_KEY


def test_where_no_list_is_at_hand_the_message_is_kept_or_goes_on_as_the_file_says(world):
    with served({}) as url:
        envelope = world.sealer(SIGNS).seal(b"x", destination=HERE)
        lists = f', lists = ["{url}/shop.crl"]'
        with pytest.raises(KeyUnavailable):
            world.sealer(TRUSTS, more=lists, sender="warehouse").open(envelope, destination=HERE)
        lax = world.sealer(TRUSTS, more=lists + ', on_stale = "accept"', sender="warehouse")
        assert lax.open(envelope, destination=HERE).body == b"x"


def test_lists_and_responses_are_fetched_over_http(world):
    """A responder that says good, and one that says revoked; a list at an address."""
    envelope = world.sealer(SIGNS).seal(b"x", destination=HERE)
    times = {"updated": NOW - DAY, "due": NOW + DAY}
    good = world.ca.response(world.certificate, **times)
    revoked = world.ca.response(world.certificate, ocsp.OCSPCertStatus.REVOKED, **times)
    pages = {
        "/good": good,
        "/revoked": revoked,
        "/shop.crl": world.revocation_list(),
        "/bad.crl": world.revocation_list(world.certificate),
    }
    asked: list[tuple[str, bytes]] = []
    with served(pages, asked) as url:
        for more, expected in (
            (f', ocsp = "{url}/good"', None),
            (f', ocsp = "{url}/revoked"', Verdict.UNKNOWN_KEY),
            (f', lists = ["{url}/shop.crl"], ocsp = "{url}/good"', None),
            (f', lists = ["{url}/bad.crl"]', Verdict.UNKNOWN_KEY),
        ):
            consumer = world.sealer(TRUSTS, more=more, sender="warehouse")
            if expected is None:
                for _ in range(3):
                    assert consumer.open(envelope, destination=HERE).body == b"x"
            else:
                assert verdict(consumer, envelope) is expected
    assert [path for path, _ in asked] == ["/good", "/revoked", "/shop.crl", "/good", "/bad.crl"]
    request = ocsp.load_der_ocsp_request(asked[0][1])
    assert request.serial_number == world.certificate.serial_number


@contextmanager
def served(pages, asked=None):
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if asked is not None:
                asked.append((self.path, body))
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/shop.crl")
                self.end_headers()
                return
            page = pages.get(self.path)
            self.send_response(404 if page is None else 200)
            self.send_header("Content-Length", str(len(page or b"")))
            self.end_headers()
            self.wfile.write(page or b"")

        do_GET = do_POST = answer  # noqa: N815 - http.server's names

        def log_message(self, *_) -> None:
            """Be quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_answer_that_leads_elsewhere_or_never_ends_is_none(world, monkeypatch):
    with served({"/shop.crl": b"x" * 100}) as url:
        with pytest.raises(OSError, match="302"):
            ListsFrom([f"{url}/moved"])()
        with pytest.raises(OSError, match="404"):
            OcspFrom(f"{url}/none")(world.certificate, world.ca.certificate)
        monkeypatch.setattr("postseal.core.providers.revocations._MOST", 99)
        with pytest.raises(OSError, match="over 99 bytes"):
            ListsFrom([f"{url}/shop.crl"])()


@pytest.mark.parametrize(
    ("prepare", "keys", "more", "words"),
    [
        (lambda w: (w.folder / "billing.crt").unlink(), SIGNS, "", ["no file", "billing.crt"]),
        (lambda w: w.write("billing.crt", b"none"), SIGNS, "", ["no certificate in PEM"]),
        (
            lambda w: w.write("billing.key", private_pem(new_key())),
            SIGNS,
            "",
            ["another key than the private one"],
        ),
        (lambda w: w.write("billing.key", b"none"), SIGNS, "", ["the private key cannot be read"]),
        (lambda w: (w.folder / "billing.key").chmod(0o644), SIGNS, "", ["open to all users"]),
        (
            lambda w: w.issue("CN=billing-api,O=Shop", used={"key_agreement": True}),
            SIGNS,
            "",
            ["is not for digitalSignature"],
        ),
        (
            lambda w: w.write(
                "billing.crt", pem(w.ca.certify("CN=x", new_key(), ends=NOW - DAY, begins=NOW - 2 * DAY))
            ),
            SIGNS,
            "",
            ["another key"],
        ),
        (lambda w: w.write("ca.pem", pem(w.certificate)), TRUSTS, "", ["no authority's"]),
        (lambda w: None, TRUSTS, ', lists = ["shop.crl"]', ["no file", "shop.crl"]),
        (lambda w: w.write("shop.crl", b"none"), TRUSTS, ', lists = ["shop.crl"]', ["lists", "shop.crl"]),
        (lambda w: w.write("known.pem", b"none"), TRUSTS, ', known = "known.pem"', ["known: no certificate"]),
    ],
)
def test_what_a_file_refers_to_is_checked_before_anything_is_sent(world, prepare, keys, more, words):
    prepare(world)
    text = mistakes(world, keys, more=more)
    assert text.count("\n") == 0
    for word in ["signers.shop", *words]:
        assert word in text


def test_one_key_does_not_both_open_and_sign(world):
    """B1."""
    path = world.file(SIGNS)
    text = path.read_text().replace('protection = "integrity"', 'protection = "privacy"\nkeys = ["main"]')
    path.write_text(text + '\n[keys.main]\nprovider = "public-key"\ncertificate = "recipient.pem"\n')
    certified = world.ca.certify(
        "CN=billing-api,O=Shop",
        key := new_key(),
        used={"digital_signature": True, "key_agreement": True},
        begins=NOW - DAY,
        ends=NOW + DAY,
    )
    world.write("billing.crt", pem(certified))
    world.write("recipient.pem", pem(certified))
    world.write("billing.key", private_pem(key))
    with pytest.raises(ConfigError, match="two key pairs"):
        Sealer.from_file(path)


# -- keys that delegate ------------------------------------------------------------------------------------------------


def public_pem(private) -> bytes:
    return private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize("algorithm", ["ed25519", "es256", "hmac-sha256"])
def test_a_key_that_is_held_here_delegates(world, monkeypatch, algorithm):
    private = ED25519 if algorithm == "ed25519" else new_key()
    world.write("root.key", private_pem(private))
    world.write("root.pub", public_pem(private))
    monkeypatch.setenv("ROOT", "11" * 32)
    key = '{ id = "root", senders = ["billing-api", "shop-web"], accept_for = "7d", lifetime = "5m", root = { algorithm = "%s", MORE } }'
    parts = ['private_key = { file = "root.key" }', 'public_key = "root.pub"']
    if algorithm == "hmac-sha256":
        parts = ['secret = { env = "ROOT", encoding = "hex" }'] * 2
    producer, consumer = (
        world.sealer(key % algorithm, algorithm="delegated", more=part, **options)
        for part, options in zip(parts, ({}, {"sender": "warehouse"}), strict=True)
    )
    opened = consumer.open(producer.seal(b"x", destination=HERE), destination=HERE)
    assert (opened.body, opened.sender) == (b"x", "billing-api")
    assert opened.origin is (Origin.GROUP if algorithm == "hmac-sha256" else Origin.SENDER)
    if algorithm != "hmac-sha256":
        gateway = world.sealer(
            key % algorithm, algorithm="delegated", more=parts[1], sender="gateway", verify_only=True
        )
        assert gateway.verify(producer.seal(b"x", destination=HERE), destination=HERE).sender == "billing-api"


def test_who_the_file_says_we_are_signs_unless_a_key_says_otherwise(world):
    world.write("root.key", private_pem(ED25519))
    key = '{ id = "root", senders = ["billing-api", "shop-web"]MORE, root = { algorithm = "ed25519", private_key = { file = "root.key" } } }'
    web = world.sealer(key, algorithm="delegated", sender="shop-web")
    assert web.open(web.seal(b"x", destination=HERE), destination=HERE).sender == "shop-web"
    other = world.sealer(key, algorithm="delegated", more=', sender = "shop-web"')
    with pytest.raises(ConfigError, match="signs as 'shop-web'"):
        other.seal(b"x", destination=HERE)


@pytest.fixture
def aws(monkeypatch):
    for name, value in (
        ("ACCESS_KEY_ID", "testing"),
        ("SECRET_ACCESS_KEY", "testing"),
        ("DEFAULT_REGION", "eu-west-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    with mock_aws():
        yield boto3.client("kms")


@pytest.mark.parametrize(
    ("word", "spec", "origin"),
    [
        ("aws-kms-es256", {"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"}, Origin.SENDER),
        ("aws-kms-hmac", {"KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC"}, Origin.GROUP),
    ],
)
def test_a_key_of_aws_kms_delegates(world, aws, word, spec, origin):
    """A6, E4."""
    arn = aws.create_key(**spec)["KeyMetadata"]["Arn"]
    key = f'{{ id = "root", senders = ["billing-api"], root = {{ algorithm = "{word}", key_id = "{arn}", connect_timeout = "1s"MORE }} }}'
    producer = world.sealer(key, algorithm="delegated")
    consumer = world.sealer(
        key, algorithm="delegated", more=', signs = false, refresh = "1m"', sender="warehouse"
    )
    opened = consumer.open(producer.seal(b"x", destination=HERE), destination=HERE)
    assert (opened.body, opened.origin) == (b"x", origin)
    (ring,) = consumer.key_rings
    assert sum(ring.calls.values()) == 1
    if origin is Origin.SENDER:
        gateway = world.sealer(
            key, algorithm="delegated", more=", signs = false", sender="gateway", verify_only=True
        )
        assert gateway.verify(producer.seal(b"x", destination=HERE), destination=HERE).origin is origin
        with pytest.raises(ConfigError, match="private key"):
            world.sealer(key, algorithm="delegated", sender="gateway", verify_only=True)


def test_a_key_of_key_vault_delegates(world, monkeypatch):
    """A6, over TLS: the file says how the vault is reached."""
    monkeypatch.setattr(clients, "azure_credential", lambda *_: AnyCredential())
    with KeyVaultDouble() as double, double.client() as client:
        address = client.create_ec_key("signing").id
        key = (
            '{ id = "root", senders = ["billing-api"], root = { algorithm = "azure-key-vault-es256", '
            f'key = "{address}", connection_verify = "{double.certificate}", verify_challenge_resource = falseMORE }} }}'
        )
        producer = world.sealer(key, algorithm="delegated")
        consumer = world.sealer(key, algorithm="delegated", more=", signs = false", sender="warehouse")
        envelope = producer.seal(b"x", destination=HERE)
        assert consumer.open(envelope, destination=HERE).origin is Origin.SENDER
        assert (double.asked["sign"], double.asked["get"]) == (1, 2)
        version = address.rsplit("/", 1)[1]
        client.update_key_properties("signing", version, enabled=False)
        with pytest.raises(KeyRefused):
            world.sealer(key, algorithm="delegated").seal(b"x", destination=HERE)


def test_a_key_in_another_region_or_vault_is_told_with_its_line(world, aws):
    root = 'algorithm = "aws-kms-es256", key_id = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd", region = "us-east-1"'
    text = mistakes(
        world, f'{{ id = "root", senders = ["billing-api"], root = {{ {root} }} }}', algorithm="delegated"
    )
    assert ":6:" in text
    assert "signers.shop.keys.0: key is in eu-west-1, but the client is of us-east-1" in text


def test_a_file_that_is_read_again_keeps_its_rings_and_asks_nobody(world, aws):
    """A rotation of what is around it costs no call, and no client."""
    arn = aws.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    key = f'{{ id = "root", senders = ["billing-api"], root = {{ algorithm = "aws-kms-es256", key_id = "{arn}" }} }}'
    path = world.file(key, algorithm="delegated")
    sealer = Sealer.from_file(path)
    sealer.seal(b"x", destination=HERE)
    rings = sealer.key_rings
    path.write_text(path.read_text() + "max_message_age = '1d'\n")
    sealer.reload()
    assert sealer.policy_for(HERE).max_message_age == 86_400
    assert sealer.key_rings == rings
    sealer.seal(b"x", destination=HERE)
    (ring,) = rings
    assert sorted(ring.calls.values()) == [1, 1]


def test_keys_of_a_file_are_what_its_sections_say(world):
    world.write("root.key", private_pem(ED25519))
    arguments = PolicyFile.read(world.file(SIGNS, TRUSTS)).resolve().arguments
    kinds = [type(key) for key in arguments["signers"]["shop"]]
    assert kinds == [X509Key, X509Roots]
    key = '{ id = "root", senders = ["billing-api"], delegate = "es256", state = "retired", retired_until = 2099-01-01, root = { algorithm = "ed25519", private_key = { file = "root.key" } } }'
    (made,) = PolicyFile.read(world.file(key, algorithm="delegated")).resolve().arguments["signers"]["shop"]
    assert isinstance(made, DelegatedKey)
    assert (made.state, made.retired_until.year) == ("retired", 2099)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_client_of_its_own(aws):
    made: list[object] = []

    def make():
        made.append(client := boto3.client("kms"))
        return client

    client = clients.OfThisProcess(make)
    assert client.meta.region_name == "eu-west-1"
    assert len(made) == 1
    client.begin_again()  # as in a child
    assert client.meta.region_name == "eu-west-1"
    assert len(made) == 2
