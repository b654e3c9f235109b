"""`VaultTransit` with the real client on a double of the transit engine: the contract, rotation, what is asked, refusals, faults."""

from __future__ import annotations

import base64
import logging
import subprocess
import sys
from hashlib import sha256

import hvac
import pytest
import requests
from hvac import exceptions

from postseal.core import CombinedKeys, ConfigError, KeyContext, KeyRefused, KeyUnavailable, VaultTransit
from postseal.core.errors import KeyBroken, NotMine
from postseal.core.keys import Recipient
from postseal.core.providers.vault import ALGORITHM, ERRORS, key_id_of
from tests.core.provider_contract import ProviderContract
from tests.core.stand_ins import CONTEXT, forms_of, shown_by_tracebacks
from tests.core.transit import Answer, TransitDouble

OTHER = KeyContext("orders", "kafka:payments")


@pytest.fixture(scope="module")
def double():
    with TransitDouble() as vault:
        yield vault


@pytest.fixture(scope="module")
def client(double):
    client = double.client()
    yield client
    client.adapter.close()


@pytest.fixture
def vault(double):
    """The double, as if nobody had asked it anything."""
    double.begin_again()
    return double


class TestAKey(ProviderContract):
    @pytest.fixture
    def provider(self, vault, client):
        return VaultTransit(client, vault.new_key())

    @pytest.fixture
    def stranger(self, vault, client):
        return VaultTransit(client, vault.new_key())


class TestADerivedKey(ProviderContract):
    @pytest.fixture
    def provider(self, vault, client):
        return VaultTransit(client, vault.new_key(derived=True), derived=True)

    @pytest.fixture
    def stranger(self, vault, client):
        return VaultTransit(client, vault.new_key(derived=True), derived=True)


class TestTwoKeysCombined(ProviderContract):
    @pytest.fixture
    def provider(self, vault, client):
        return CombinedKeys([VaultTransit(client, vault.new_key()) for _ in range(2)])

    @pytest.fixture
    def stranger(self, vault, client):
        return VaultTransit(client, vault.new_key())


# -- what is asked -----------------------------------------------------------------------------------------------------


class Heard:
    """Stands before a transit engine, and writes down what it is asked."""

    def __init__(self, client, monkeypatch) -> None:
        self.posts: list[tuple[str, dict]] = []
        post = client.adapter.post

        def heard(url, **options):
            self.posts.append((url, options["json"]))
            return post(url, **options)

        monkeypatch.setattr(client.adapter, "post", heard)


def test_the_requests_are_those_of_the_specification(vault, client, monkeypatch):
    """SPEC.md 6.2 and 6.3: the context is the associated data, the wrapped key is version and bytes."""
    heard, name = Heard(client, monkeypatch), vault.new_key()
    vault.rotate(name)
    provider = VaultTransit(client, name)
    data_key = bytes(range(32))
    (recipient,) = provider.wrap(data_key, CONTEXT)
    associated = base64.b64encode(b"\x83\x73postseal v1 context\x66orders\x6ckafka:orders").decode()
    assert heard.posts == [
        (
            f"/v1/transit/encrypt/{name}",
            {"plaintext": base64.b64encode(data_key).decode(), "associated_data": associated},
        )
    ]
    assert VaultTransit.associated_data(CONTEXT) == associated
    assert recipient.algorithm == ALGORITHM == -65539
    encoded = b"\x85\x71postseal v1 vault\x60\x60\x67transit" + bytes([0x60 + len(name)]) + name.encode()
    assert recipient.key_id == sha256(encoded).digest()[:8]
    assert recipient.wrapped_key[:4] == b"\0\0\0\2"
    assert len(recipient.wrapped_key) == 4 + 12 + 32 + 16
    heard.posts.clear()
    assert provider.unwrap([recipient], CONTEXT) == data_key
    ciphertext = "vault:v2:" + base64.b64encode(recipient.wrapped_key[4:]).decode()
    assert heard.posts == [
        (f"/v1/transit/decrypt/{name}", {"ciphertext": ciphertext, "associated_data": associated})
    ]


def test_a_derived_key_is_told_the_context_twice(vault, client, monkeypatch):
    """Bound as associated data, too: a key that was not made as a derived one would pass the context over."""
    heard = Heard(client, monkeypatch)
    VaultTransit(client, vault.new_key(derived=True), derived=True).generate(CONTEXT)
    ((_, asked),) = heard.posts
    assert asked["context"] == asked["associated_data"] == VaultTransit.associated_data(CONTEXT)


def test_a_key_wrongly_said_to_be_derived_is_bound_all_the_same(vault, client):
    provider = VaultTransit(client, vault.new_key(), derived=True)
    made = provider.generate(CONTEXT)
    assert provider.unwrap(made.recipients, CONTEXT) == made.data_key
    with pytest.raises(KeyBroken):
        provider.unwrap(made.recipients, OTHER)


def test_making_and_opening_a_data_key_cost_one_call_each(vault, client):
    provider = VaultTransit(client, vault.new_key())
    made = provider.generate(CONTEXT)
    assert vault.asked == {"encrypt": 1}
    provider.unwrap(made.recipients, CONTEXT)
    assert vault.asked == {"encrypt": 1, "decrypt": 1}


def test_a_recipient_of_an_unknown_key_costs_no_call(vault, client):
    provider = VaultTransit(client, vault.new_key())
    (recipient,) = provider.generate(CONTEXT).recipients
    vault.asked.clear()
    for foreign in (recipient._replace(key_id=b"unknown!"), recipient._replace(algorithm=-65538)):
        with pytest.raises(NotMine):
            provider.unwrap([foreign], CONTEXT)
    assert not vault.asked


@pytest.mark.parametrize("wrapped", [b"", b"\0\0\0\1" + bytes(59), b"\0\0\0\1" + bytes(1020), bytes(64)])
def test_what_cannot_be_a_wrapped_key_costs_no_call(vault, client, wrapped):
    """The last is of version 0, which a vault takes for version 1."""
    provider = VaultTransit(client, vault.new_key())
    (recipient,) = provider.generate(CONTEXT).recipients
    vault.asked.clear()
    with pytest.raises(KeyBroken):
        provider.unwrap([recipient._replace(wrapped_key=wrapped)], CONTEXT)
    assert not vault.asked


def test_a_wrapped_key_has_one_form(vault, client):
    """Version 0 is version 1 to a vault: a copy with other bytes would not be known as one."""
    provider = VaultTransit(client, vault.new_key())
    (recipient,) = provider.generate(CONTEXT).recipients
    twin = recipient._replace(wrapped_key=bytes(4) + recipient.wrapped_key[4:])
    with pytest.raises(KeyBroken):
        provider.unwrap([twin], CONTEXT)


# -- rotation ----------------------------------------------------------------------------------------------------------


def test_a_new_version_wraps_at_once_and_old_ones_open_until_they_are_too_old(vault, client):
    """A13, B15: min_decryption_version is a no."""
    name = vault.new_key()
    provider = VaultTransit(client, name)
    old = provider.generate(CONTEXT)
    vault.rotate(name)
    new = provider.generate(CONTEXT)
    assert [made.recipients[0].wrapped_key[:4] for made in (old, new)] == [b"\0\0\0\1", b"\0\0\0\2"]
    assert [made.recipients[0].key_id for made in (old, new)] == [key_id_of(name)] * 2
    assert provider.unwrap(old.recipients, CONTEXT) == old.data_key
    vault.keys[name].oldest = 2
    with pytest.raises(KeyRefused, match="min_decryption_version"):
        provider.unwrap(old.recipients, CONTEXT)
    assert provider.unwrap(new.recipients, CONTEXT) == new.data_key


def test_a_key_of_another_name_still_opens_and_no_longer_wraps(vault, client):
    old, new = vault.new_key(), vault.new_key()
    made = VaultTransit(client, old).generate(CONTEXT)
    provider = VaultTransit(client, new, also_open=[old])
    assert provider.unwrap(made.recipients, CONTEXT) == made.data_key
    assert [recipient.key_id for recipient in provider.generate(CONTEXT).recipients] == [key_id_of(new)]
    with pytest.raises(NotMine):
        VaultTransit(client, new).unwrap(made.recipients, CONTEXT)


# -- what the vault says -----------------------------------------------------------------------------------------------

USES = {
    "encrypt": lambda provider, recipient: provider.wrap(bytes(32), CONTEXT),
    "decrypt": lambda provider, recipient: provider.unwrap([recipient], CONTEXT),
}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(400, ("encryption key not found",)), KeyRefused),
        (Answer(400, ("missing 'context' for key derivation",)), KeyRefused),
        (Answer(400, ("associated_data provided for non-AEAD cipher suite rsa-2048",)), KeyRefused),
        (Answer(400, ("missing client token",)), KeyUnavailable),
        (Answer(400, body=b"<html>"), KeyUnavailable),
        (Answer(403, body=b"<html>"), KeyUnavailable),
        (Answer(404, body=b"default backend - 404"), KeyUnavailable),
        (Answer(404, body=b"{}"), KeyUnavailable),
        (Answer(400, body=b"[]"), KeyUnavailable),
        (Answer(401), KeyUnavailable),
        (Answer(403, ("permission denied",)), KeyRefused),
        (Answer(404, ("no handler for route",)), KeyRefused),
        (Answer(405), KeyUnavailable),
        (Answer(412), KeyUnavailable),
        (Answer(429, ("request path is rate limited",)), KeyUnavailable),
        (Answer(472), KeyUnavailable),
        (Answer(473), KeyUnavailable),
        (Answer(500, ("internal error",)), KeyUnavailable),
        (Answer(501), KeyUnavailable),
        (Answer(502, body=b"<html>"), KeyUnavailable),
        (Answer(503, ("Vault is sealed",)), KeyUnavailable),
        (Answer(200, body=b""), KeyUnavailable),
        (Answer(200, body=b"<html>"), KeyUnavailable),
        (Answer(200, body=b"[]"), KeyUnavailable),
        (Answer(200, body=b'{"data": null}'), KeyUnavailable),
        (Answer(hang_up=True), KeyUnavailable),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else f"{value.status}-{value.errors or value.body}",
)  # fmt: skip
@pytest.mark.parametrize("use", sorted(USES))
def test_every_answer_is_mapped(vault, client, use, answer, kind):
    name = vault.new_key()
    provider = VaultTransit(client, name)
    (recipient,) = provider.generate(CONTEXT).recipients
    vault.answers.append(answer)
    with pytest.raises(kind) as caught:
        USES[use](provider, recipient)
    assert type(caught.value) is kind
    assert f"transit/{name}" in str(caught.value)
    assert not [words for words in answer.errors if words in str(caught.value)]


def test_what_a_vault_cannot_decrypt_is_broken_and_what_it_cannot_encrypt_is_refused(vault, client):
    provider = VaultTransit(client, vault.new_key())
    (recipient,) = provider.generate(CONTEXT).recipients
    vault.answers += [Answer(400, ("words of a later version",))] * 2
    with pytest.raises(KeyBroken):
        provider.unwrap([recipient], CONTEXT)
    with pytest.raises(KeyRefused):
        provider.wrap(bytes(32), CONTEXT)


def test_every_error_of_the_client_is_in_the_table():
    """Fails when a later hvac brings an error that nobody has thought about."""
    assert set(exceptions.VaultError.__subclasses__()) == set(ERRORS)


def test_a_vault_that_is_not_there_is_a_passing_fault():
    client = hvac.Client("http://127.0.0.1:9", token="x", timeout=1)
    with pytest.raises(KeyUnavailable, match="ConnectionError"):
        VaultTransit(client, "orders").generate(CONTEXT)


def test_a_missing_right_is_refused_and_named(vault, client):
    provider = VaultTransit(client, vault.new_key())
    made = provider.generate(CONTEXT)
    vault.denied = {"decrypt"}
    with pytest.raises(KeyRefused, match="no right to update transit/decrypt"):
        provider.unwrap(made.recipients, CONTEXT)


def test_a_token_that_has_expired_is_a_passing_fault(vault, client):
    """A vault says *permission denied* to both. A token is renewed: no message may be lost over it."""
    provider = VaultTransit(client, vault.new_key())
    made = provider.generate(CONTEXT)
    vault.expired = True
    for use in (lambda: provider.unwrap(made.recipients, CONTEXT), lambda: provider.generate(CONTEXT)):
        with pytest.raises(KeyUnavailable, match="expired or was revoked"):
            use()
    vault.expired = False
    assert provider.unwrap(made.recipients, CONTEXT) == made.data_key


def test_a_key_that_is_a_derived_one_is_told_so(vault, client):
    with pytest.raises(KeyRefused, match="derived=True"):
        VaultTransit(client, vault.new_key(derived=True)).generate(CONTEXT)


def test_debug_logs_of_the_client_show_no_data_key(vault, client, caplog):
    """D3: urllib3 and requests log addresses, never bodies; should that change, this fails."""
    caplog.set_level(logging.DEBUG)
    provider = VaultTransit(client, vault.new_key())
    made = provider.generate(CONTEXT)
    assert provider.unwrap(made.recipients, CONTEXT) == made.data_key
    vault.answers.append(Answer(500, ("internal error",)))
    with pytest.raises(KeyUnavailable):
        provider.unwrap(made.recipients, CONTEXT)
    assert "/v1/transit/decrypt/" in caplog.text
    for form in (base64.b64encode(made.data_key).decode(), made.data_key.hex(), repr(made.data_key)[2:-1]):
        assert form not in caplog.text


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_data_key_of_a_wrong_size_is_broken(vault, client, size):
    """Whoever may encrypt can have wrapped what is no data key: that message will never open."""
    provider = VaultTransit(client, vault.new_key())
    (recipient,) = provider.generate(CONTEXT).recipients
    plaintext = base64.b64encode(bytes(size))
    vault.answers.append(Answer(200, body=b'{"data": {"plaintext": "%s"}}' % plaintext))
    with pytest.raises(KeyBroken, match=f"{size} bytes"):
        provider.unwrap([recipient], CONTEXT)


@pytest.mark.parametrize(
    "body", [b'{"data": {}}', b'{"data": {"plaintext": "!"}}', b'{"data": {"plaintext": null}}']
)
def test_an_answer_without_a_data_key_says_nothing_of_the_message(vault, client, body):
    """Half an answer is no answer: no good message may be refused over it."""
    provider = VaultTransit(client, vault.new_key())
    (recipient,) = provider.generate(CONTEXT).recipients
    vault.answers.append(Answer(200, body=body))
    with pytest.raises(KeyUnavailable):
        provider.unwrap([recipient], CONTEXT)


@pytest.mark.parametrize(
    "text",
    ["", "AAAA", "vault:v0:AAAA", "vault:v1:AAAA", "vault:v9999999999:AAAA", "vault:v1:!", "other:v1:AAAA"],
)
def test_an_answer_without_a_wrapped_key_is_not_believed(vault, client, text):
    vault.answers.append(Answer(200, body=b'{"data": {"ciphertext": "%s"}}' % text.encode()))
    with pytest.raises(KeyRefused):
        VaultTransit(client, vault.new_key()).generate(CONTEXT)


# -- configuration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["key", "also_open"])
@pytest.mark.parametrize("key", ["", "a/b", "../sys", "orders\n", "transit/keys/orders", ".", "ordé"])
def test_a_name_that_cannot_be_of_a_key_is_refused_at_construction(client, option, key):
    options = {"key": key} if option == "key" else {"key": "orders", "also_open": [key]}
    with pytest.raises(ConfigError, match=f"{option} is no name"):
        VaultTransit(client, **options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"also_open": "orders"}, "also_open must be a list"),
        ({"mount_point": ""}, "mount_point"),
        ({"mount_point": "a//b"}, "mount_point"),
        ({"mount_point": "a?b"}, "mount_point"),
        ({"cluster": "a\nb"}, "cluster"),
    ],
)
def test_a_wrong_option_is_named(client, options, told):
    with pytest.raises(ConfigError, match=told):
        VaultTransit(client, "orders", **options)


@pytest.mark.parametrize("client", [None, "http://127.0.0.1:8200", requests.Session])
def test_something_else_than_a_client_is_refused(client):
    with pytest.raises(ConfigError, match=r"hvac\.Client"):
        VaultTransit(client, "orders")


def test_mounts_namespaces_and_clusters_make_other_keys(double):
    clients = [double.client(namespace=namespace) for namespace in (None, "eu", "eu/")]
    names = [
        VaultTransit(clients[0], "orders")._key_id,
        VaultTransit(clients[0], "orders", mount_point="/transit/")._key_id,
        VaultTransit(clients[0], "orders", mount_point="eu/transit")._key_id,
        VaultTransit(clients[1], "orders")._key_id,
        VaultTransit(clients[2], "orders")._key_id,
        VaultTransit(clients[0], "orders", cluster="eu")._key_id,
    ]
    assert names[0] == names[1] == key_id_of("orders")
    assert names[3] == names[4] == key_id_of("orders", namespace="eu")
    assert len(set(names)) == 4


def test_two_clusters_with_keys_of_one_name_need_names_of_their_own(vault, client):
    name = vault.new_key()
    with pytest.raises(ConfigError, match="same key"):
        CombinedKeys([VaultTransit(client, name), VaultTransit(client, name)]).generate(CONTEXT)
    both = CombinedKeys([VaultTransit(client, name, cluster="eu"), VaultTransit(client, name, cluster="us")])
    made = both.generate(CONTEXT)
    assert both.unwrap(made.recipients, CONTEXT) == made.data_key


# -- what shows of a key -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [Answer(503), Answer(403), Answer(hang_up=True)], ids=["503", "403", "gone"]
)
def test_no_data_key_shows_in_the_traceback_of_a_failed_wrap(vault, client, answer):
    """D3: error reporters print the locals of every frame. What `requests` raises holds the request: it is not handed on."""
    provider = VaultTransit(client, vault.new_key())
    vault.answers.append(answer)
    secret = bytes(range(100, 132))
    with pytest.raises((KeyUnavailable, KeyRefused)) as caught:
        provider.wrap(bytes(secret), CONTEXT)
    shown = shown_by_tracebacks(caught.value)
    assert "failure=" in shown  # locals were captured
    assert not [form for form in forms_of(secret) if form in shown]
    assert not isinstance(caught.value.__cause__, requests.RequestException)
    assert caught.value.__context__ is None


def test_it_shows_its_key_and_nothing_of_the_token(client):
    assert repr(VaultTransit(client, "orders")) == "<VaultTransit transit/orders>"


def test_its_recipient_is_not_taken_for_one_of_another_kind(vault, client):
    provider = VaultTransit(client, vault.new_key())
    (recipient,) = provider.generate(CONTEXT).recipients
    with pytest.raises(NotMine):
        provider.unwrap([Recipient(-41, recipient.key_id, recipient.wrapped_key)], CONTEXT)


# -- without its extra -------------------------------------------------------------------------------------------------


def test_without_hvac_the_extra_is_named():
    code = """
import sys
sys.modules["hvac"] = None
import postseal.core
try:
    postseal.core.VaultTransit
except postseal.core.MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'postseal[vault]'" in done.stdout
