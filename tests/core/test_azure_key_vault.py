"""`AzureKeyVault` with the real SDK on a double of the vault: the contract, rotation, what is asked, refusals, faults, what shows of a key."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from hashlib import sha256

import pytest
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from azure.keyvault.keys import ApiVersion
from azure.keyvault.keys.aio import KeyClient as AsyncKeyClient
from azure.keyvault.keys.crypto import CryptographyClient

from postseal.core import (
    AzureKeyVault,
    CombinedKeys,
    ConfigError,
    DataKeyLimits,
    KeyContext,
    KeyRefused,
    KeyUnavailable,
    Policy,
    Sealer,
)
from postseal.core.errors import KeyBroken, NotMine
from postseal.core.keys import Recipient
from postseal.core.providers._azure_rest import ERRORS
from postseal.core.providers.azure_key_vault import A256KW, RSA_OAEP_256, key_id_of
from tests.core.key_vault import Answer, AnyAsyncCredential, AnyCredential, KeyVaultDouble
from tests.core.provider_contract import ProviderContract
from tests.core.stand_ins import CONTEXT, Clock, forms_of, in_threads, local_keys, shown_by_tracebacks

OTHER = KeyContext("orders", "kafka:payments")


@pytest.fixture(scope="module")
def double():
    with KeyVaultDouble() as vault:
        yield vault


@pytest.fixture(scope="module")
def client(double):
    with double.client() as client:
        yield client


@pytest.fixture
def vault(double):
    """The double, as if nobody had asked it anything."""
    double.begin_again()
    return double


def fresh(name: str = "orders") -> str:
    return f"{name}-{uuid.uuid4().hex[:12]}"


def new_rsa(client, **options) -> str:
    return client.create_rsa_key(fresh(), **options).name


def new_oct(client) -> str:
    return client.create_oct_key(fresh(), size=256, hardware_protected=True).name


class TestAnRsaKey(ProviderContract):
    @pytest.fixture
    def provider(self, vault, client):
        return AzureKeyVault(client, new_rsa(client))

    @pytest.fixture
    def stranger(self, vault, client):
        return AzureKeyVault(client, new_rsa(client))


class TestAKeyOfAManagedHsm(ProviderContract):
    @pytest.fixture
    def provider(self, vault, client):
        return AzureKeyVault(client, new_oct(client))

    @pytest.fixture
    def stranger(self, vault, client):
        return AzureKeyVault(client, new_oct(client))


class TestTwoKeysCombined(ProviderContract):
    @pytest.fixture
    def provider(self, vault, client):
        return CombinedKeys([AzureKeyVault(client, new_rsa(client)), AzureKeyVault(client, new_oct(client))])

    @pytest.fixture
    def stranger(self, vault, client):
        return AzureKeyVault(client, new_rsa(client))


@pytest.fixture(scope="module")
def running(double):
    """An event loop in a thread, and an asyncio client on it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def on_loop(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    async def opened():
        return AsyncKeyClient(double.url, AnyAsyncCredential(), **double.options)

    client = on_loop(opened())
    yield client, on_loop
    on_loop(client.close())
    on_loop(let_transports_close())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class TestAnAsyncioClient(ProviderContract):
    """From threads; its own loop runs in another."""

    def on_a_new_key(self, running, client):
        asyncio_client, on_loop = running
        name = new_rsa(client)

        async def made():
            return AzureKeyVault(asyncio_client, name)

        return on_loop(made())

    @pytest.fixture
    def provider(self, vault, client, running):
        return self.on_a_new_key(running, client)

    @pytest.fixture
    def stranger(self, vault, client, running):
        return self.on_a_new_key(running, client)


# -- what is asked -----------------------------------------------------------------------------------------------------


def test_an_rsa_key_is_fetched_once_and_wraps_here(vault, client):
    """D5: sealing costs no call for each data key; the right is keys/get. Opening costs one, and its right is keys/unwrapKey alone."""
    name = new_rsa(client)
    vault.asked.clear()
    vault.denied = {"wrapkey", "unwrapkey"}
    producer = AzureKeyVault(client, name)
    made = [producer.generate(CONTEXT) for _ in range(10)]
    assert vault.asked == {"get": 1}
    vault.asked.clear()
    vault.denied = {"get", "wrapkey"}
    consumer = AzureKeyVault(client, name)
    assert [consumer.unwrap(each.recipients, CONTEXT) for each in made] == [each.data_key for each in made]
    assert vault.asked == {"unwrapkey": 10}


def test_a_key_of_a_managed_hsm_wraps_there(vault, client):
    name = new_oct(client)
    vault.asked.clear()
    provider = AzureKeyVault(client, name)
    made = [provider.generate(CONTEXT) for _ in range(3)]
    assert vault.asked == {"get": 1, "wrapkey": 3}
    assert {recipient.algorithm for each in made for recipient in each.recipients} == {A256KW} == {-5}


def test_the_bytes_are_those_of_the_specification(vault, client):
    """SPEC.md 6.2 and 6.3: kid is 8 bytes of the key's name and the 16 of the version; the wrap is of the data key alone, a tag follows."""
    made_key = client.create_rsa_key(fresh())
    provider = AzureKeyVault(client, made_key.name.upper())
    data_key = bytes(range(32))
    (recipient,) = provider.wrap(data_key, CONTEXT)
    identifier = f"{vault.url}/keys/{made_key.name}".lower()
    assert recipient.algorithm == RSA_OAEP_256 == -41
    assert recipient.key_id[:8] == sha256(identifier.encode()).digest()[:8]
    assert recipient.key_id[8:].hex() == made_key.properties.version
    with CryptographyClient(made_key, AnyCredential(), **vault.options) as stranger:
        assert stranger.unwrap_key("RSA-OAEP-256", recipient.wrapped_key[:-16]).key == data_key
    assert recipient.wrapped_key[-16:].hex() == "2a7f9c85d3411c979059b83877beb4b8"
    vault.requests.clear()
    assert provider.unwrap([recipient], CONTEXT) == data_key
    assert [request.path for request in vault.requests] == [
        f"/keys/{made_key.name.upper()}/{made_key.properties.version}/unwrapkey"
    ]


@pytest.mark.parametrize("size", [3072, 4096])
def test_larger_keys_wrap_too(vault, client, size):
    provider = AzureKeyVault(client, new_rsa(client, size=size))
    made = provider.generate(CONTEXT)
    assert len(made.recipients[0].wrapped_key) == size // 8 + 16
    assert provider.unwrap(made.recipients, CONTEXT) == made.data_key


@pytest.mark.parametrize("new", [new_rsa, new_oct])
def test_the_tag_binds_and_is_not_to_be_moved(vault, client, new):
    """A8: a vault has no encryption context. One wrap's tag on another, none, or one bit of it changed: broken."""
    provider = AzureKeyVault(client, new(client))
    data_key = bytes(range(32))
    (here,), (there,) = provider.wrap(data_key, CONTEXT), provider.wrap(data_key, OTHER)
    assert here.wrapped_key[-16:] != there.wrapped_key[-16:]
    swapped = here._replace(wrapped_key=here.wrapped_key[:-16] + there.wrapped_key[-16:])
    assert provider.unwrap([swapped], OTHER) == data_key  # who has both has the right to both
    (another,) = provider.wrap(os.urandom(32), OTHER)
    for forged in (swapped, here._replace(wrapped_key=here.wrapped_key[:-16] + another.wrapped_key[-16:])):
        with pytest.raises(KeyBroken, match="another context"):
            provider.unwrap([forged], CONTEXT)


def test_a_message_names_no_key_but_ours(vault, client):
    """The kid holds no name and no address: an unknown beginning is nobody's, whatever stands behind it. Nothing is asked."""
    provider = AzureKeyVault(client, new_rsa(client))
    (recipient,) = provider.generate(CONTEXT).recipients
    vault.asked.clear()
    prefix = recipient.key_id[:8]
    for kid in (
        bytes(8) + recipient.key_id[8:],
        prefix,
        recipient.key_id[:-1],
        recipient.key_id + b"/",
        prefix + b"../../x",
    ):
        with pytest.raises(NotMine):
            provider.unwrap([recipient._replace(key_id=kid)], CONTEXT)
    assert not vault.asked


def test_a_version_that_is_not_there_is_refused(vault, client):
    provider = AzureKeyVault(client, new_rsa(client))
    (recipient,) = provider.generate(CONTEXT).recipients
    with pytest.raises(KeyRefused, match="404 KeyNotFound"):
        provider.unwrap([recipient._replace(key_id=recipient.key_id[:8] + bytes(16))], CONTEXT)


def test_many_versions_in_one_message_cost_one_call(vault, client):
    """An honest sealer writes one recipient for each key. A forger's sixteen are not to cost sixteen calls."""
    provider = AzureKeyVault(client, new_rsa(client))
    (recipient,) = provider.generate(CONTEXT).recipients
    vault.asked.clear()
    forged = [recipient._replace(key_id=recipient.key_id[:8] + os.urandom(16)) for _ in range(16)]
    with pytest.raises(KeyRefused):
        provider.unwrap(forged, CONTEXT)
    assert vault.asked == {"unwrapkey": 1}


@pytest.mark.parametrize("size", [0, 16, 271, 273, 6144])
def test_what_cannot_be_a_wrapped_key_costs_no_call(vault, client, size):
    provider = AzureKeyVault(client, new_rsa(client))
    (recipient,) = provider.generate(CONTEXT).recipients
    vault.asked.clear()
    with pytest.raises(KeyBroken, match=f"{size} bytes"):
        provider.unwrap([recipient._replace(wrapped_key=bytes(size))], CONTEXT)
    assert not vault.asked


# -- rotation ----------------------------------------------------------------------------------------------------------


def test_a_new_version_wraps_within_the_stated_time_and_old_ones_open(vault, client):
    name, clock = new_rsa(client), Clock()
    provider = AzureKeyVault(client, name, refresh=300, monotonic=clock)
    before = provider.generate(CONTEXT)
    client.rotate_key(name)
    clock.pass_(299)
    assert provider.generate(CONTEXT).recipients[0].key_id == before.recipients[0].key_id
    clock.pass_(1)
    after = provider.generate(CONTEXT)
    assert after.recipients[0].key_id[:8] == before.recipients[0].key_id[:8]
    assert after.recipients[0].key_id != before.recipients[0].key_id
    for made in (before, after):
        assert AzureKeyVault(client, name).unwrap(made.recipients, CONTEXT) == made.data_key


def test_a_sealer_takes_up_a_new_version_and_opens_the_old(vault, client):
    """Through the front: the age of a data key and of the fetched key, together."""
    name, clock = new_rsa(client), Clock()
    policy = Policy(
        name="orders", destinations=["kafka:orders"], keys=["main"], data_key=DataKeyLimits(max_age=600)
    )
    provider = AzureKeyVault(client, name, refresh=300, monotonic=clock)
    sealer = Sealer(sender="shop", policies=[policy], keys={"main": provider}, monotonic=clock)
    old = sealer.seal(b"old", destination="kafka:orders")
    rotated = client.rotate_key(name)
    clock.pass_(600)
    new = sealer.seal(b"new", destination="kafka:orders")
    assert bytes.fromhex(rotated.properties.version) in new
    assert bytes.fromhex(rotated.properties.version) not in old
    sealer.close()
    assert [sealer.open(each, destination="kafka:orders").body for each in (old, new)] == [b"old", b"new"]


def test_a_key_of_another_name_still_opens_and_no_longer_wraps(vault, client):
    old, new = new_rsa(client), new_oct(client)
    made = AzureKeyVault(client, old).generate(CONTEXT)
    provider = AzureKeyVault(client, new, also_open=[f"{vault.url}/keys/{old}"])
    assert provider.unwrap(made.recipients, CONTEXT) == made.data_key
    assert {recipient.algorithm for recipient in provider.generate(CONTEXT).recipients} == {A256KW}
    with pytest.raises(NotMine):
        AzureKeyVault(client, new).unwrap(made.recipients, CONTEXT)


def test_many_threads_fetch_the_key_once(vault, client):
    name = new_rsa(client)
    vault.asked.clear()
    provider = AzureKeyVault(client, name)
    made = in_threads(*[lambda: provider.generate(CONTEXT)] * 16)
    assert len({each.data_key for each in made}) == 16
    assert vault.asked == {"get": 1}


def test_many_threads_share_one_failure_to_fetch_and_its_wait(vault, client, monkeypatch):
    """In an outage, the tenth destination is not to wait for ten timeouts."""
    provider = AzureKeyVault(client, new_rsa(client))
    vault.asked.clear()
    fetched, waiting = provider._fetched, threading.Barrier(8)
    reads, counting = 0, threading.Lock()

    def fetched_when_all_wait():
        while reads < 8 + 1:  # each once, and whoever has the lock once more
            time.sleep(0.001)
        return fetched()

    class Counted:
        """Tells that a thread has seen what failed before it came to the lock."""

        def __get__(self, instance, owner):
            nonlocal reads
            with counting:
                reads += 1
            return instance.__dict__["_failure"]

        def __set__(self, instance, value):
            instance.__dict__["_failure"] = value

    monkeypatch.setattr(AzureKeyVault, "_failure", Counted(), raising=False)
    monkeypatch.setattr(provider, "_fetched", fetched_when_all_wait)

    def generate():
        waiting.wait(60)
        return provider.generate(CONTEXT)

    vault.away = True
    outcomes = in_threads(*[generate] * 8)
    assert [type(outcome) for outcome in outcomes] == [KeyUnavailable] * 8
    assert vault.asked == {"get": 1}
    vault.away = False
    assert provider.generate(CONTEXT).recipients


# -- the vault is away -------------------------------------------------------------------------------------------------


def test_past_its_age_a_key_wraps_only_when_the_vault_answers(vault, client):
    """B14: what could be wrapped here, nobody could unwrap there. The sealer goes on with the data key that consumers have."""
    clock = Clock()
    provider = AzureKeyVault(client, new_rsa(client), refresh=300, monotonic=clock)
    first = provider.generate(CONTEXT)
    clock.pass_(300)
    vault.away = True
    with pytest.raises(KeyUnavailable, match="503"):
        provider.generate(CONTEXT)
    vault.away = False
    assert provider.generate(CONTEXT).recipients[0].key_id == first.recipients[0].key_id


def test_a_vault_that_does_not_answer_in_time_is_a_passing_fault(vault, client):
    name = new_rsa(client)
    (recipient,) = AzureKeyVault(client, name).generate(CONTEXT).recipients
    with vault.client(read_timeout=0.2) as hasty:
        vault.answers += [Answer(hang=True), Answer(hang=True)]
        with pytest.raises(KeyUnavailable, match="no answer"):
            AzureKeyVault(hasty, name).generate(CONTEXT)
        with pytest.raises(KeyUnavailable, match="no answer"):
            AzureKeyVault(hasty, name).unwrap([recipient], CONTEXT)


def test_a_vault_that_throttles_is_asked_again_by_its_own_client(vault, client):
    """D8: Retry-After is the client's to keep; the message waits for that long, and is sealed."""
    name = new_rsa(client)
    made = AzureKeyVault(client, name).generate(CONTEXT)
    with vault.client(retry_total=2) as patient:
        vault.answers.append(Answer(429, "Throttled", headers={"Retry-After": "0"}))
        assert AzureKeyVault(patient, name).unwrap(made.recipients, CONTEXT) == made.data_key


def test_a_vault_that_is_not_there_is_a_passing_fault():
    provider = AzureKeyVault.connect("https://127.0.0.1:9", "orders", AnyCredential(), retry_total=0)
    with provider._vault._client, pytest.raises(KeyUnavailable, match="ServiceRequestError"):
        provider.generate(CONTEXT)


class NoTokens:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def get_token(self, *_, **__):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [ClientAuthenticationError("expired"), ServiceRequestError("no network"), RuntimeError("theirs")],
    ids=repr,
)
def test_a_credential_that_gets_no_token_is_a_passing_fault(vault, client, error):
    """It is renewed, or the agent that gives it comes back: no message may be lost over it."""
    name = new_rsa(client)
    (recipient,) = AzureKeyVault(client, name).generate(CONTEXT).recipients
    provider = AzureKeyVault.connect(vault.url, name, NoTokens(error), **vault.options)
    with provider._vault._client:
        for use in (lambda: provider.generate(CONTEXT), lambda: provider.unwrap([recipient], CONTEXT)):
            with pytest.raises(KeyUnavailable, match=type(error).__name__):
                use()


# -- what the vault says -----------------------------------------------------------------------------------------------

USES = {
    "get": lambda provider, recipient: provider.generate(CONTEXT),
    "unwrapkey": lambda provider, recipient: provider.unwrap([recipient], CONTEXT),
}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(401, "Unauthorized"), KeyUnavailable),
        (Answer(403, "Forbidden", "ForbiddenByRbac"), KeyRefused),
        (Answer(403, "Forbidden", "AccessDenied"), KeyRefused),
        (Answer(403, "Forbidden", "KeyDisabled"), KeyRefused),
        (Answer(403, "Forbidden"), KeyRefused),
        (Answer(403, body=b"<html>"), KeyUnavailable),
        (Answer(403, body=b"<html>", headers={"Content-Type": "text/html"}), KeyUnavailable),
        (Answer(404, body=b"{}"), KeyUnavailable),
        (Answer(400, body=b"no"), KeyUnavailable),
        (Answer(403, "Forbidden", "ForbiddenByFirewall"), KeyUnavailable),
        (Answer(403, "Forbidden", "ForbiddenByConnection"), KeyUnavailable),
        (Answer(404, "KeyNotFound"), KeyRefused),
        (Answer(408), KeyUnavailable),
        (Answer(409, "Conflict", "ObjectIsBeingRecovered"), KeyUnavailable),
        (Answer(418, "Teapot"), KeyUnavailable),
        (Answer(429, "Throttled"), KeyUnavailable),
        (Answer(500, "InternalServerError"), KeyUnavailable),
        (Answer(502, body=b"<html>"), KeyUnavailable),
        (Answer(503, "ServiceUnavailable"), KeyUnavailable),
        (Answer(204, body=b""), KeyUnavailable),
        (Answer(200, body=b""), KeyUnavailable),
        (Answer(200, body=b'{"value": "AAAA'), KeyUnavailable),
        (Answer(200, body=b"[]"), KeyUnavailable),
        (Answer(200, body=b"\xff\xfe\xfd"), KeyUnavailable),
        (Answer(hang_up=True), KeyUnavailable),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else f"{value.status}-{value.inner or value.code or value.body}",
)  # fmt: skip
@pytest.mark.parametrize("use", sorted(USES))
def test_every_answer_is_mapped_and_only_a_vault_says_no(vault, client, use, answer, kind):
    name = new_rsa(client)
    (recipient,) = AzureKeyVault(client, name).generate(CONTEXT).recipients
    vault.answers.append(answer)
    with pytest.raises(kind) as caught:
        USES[use](AzureKeyVault(client, name), recipient)
    assert type(caught.value) is kind
    assert f"{vault.url}/keys/{name}" in str(caught.value)
    assert "own words" not in str(caught.value)


def test_what_a_vault_cannot_unwrap_is_broken_and_what_it_cannot_wrap_is_refused(vault, client):
    name, symmetric = new_rsa(client), new_oct(client)
    (recipient,) = AzureKeyVault(client, name).generate(CONTEXT).recipients
    vault.answers.append(Answer(400, "BadParameter"))
    with pytest.raises(KeyBroken, match="400 BadParameter"):
        AzureKeyVault(client, name).unwrap([recipient], CONTEXT)
    provider = AzureKeyVault(client, symmetric)
    provider.generate(CONTEXT)
    vault.answers.append(Answer(400, "BadParameter"))
    with pytest.raises(KeyRefused, match="400 BadParameter"):
        provider.wrap(bytes(32), CONTEXT)


@pytest.mark.parametrize("status", [400, 403, 404])
def test_the_table_says_what_a_status_means(status):
    assert ERRORS[status] is KeyRefused


def test_a_right_and_a_key_that_are_missing_are_told_with_what_was_asked(vault, client):
    name = new_rsa(client)
    made = AzureKeyVault(client, name).generate(CONTEXT)
    vault.denied = {"unwrapkey"}
    with pytest.raises(
        KeyRefused, match=f"unwrapKey on {vault.url}/keys/{name}: 403 Forbidden, ForbiddenByRbac"
    ):
        AzureKeyVault(client, name).unwrap(made.recipients, CONTEXT)


def test_a_disabled_version_no_longer_opens_and_one_enabled_again_does(vault, client):
    """A13."""
    key = client.create_rsa_key(fresh())
    provider = AzureKeyVault(client, key.name)
    made = provider.generate(CONTEXT)
    client.update_key_properties(key.name, key.properties.version, enabled=False)
    with pytest.raises(KeyRefused, match="KeyDisabled"):
        provider.unwrap(made.recipients, CONTEXT)
    with pytest.raises(KeyRefused, match="is disabled"):
        AzureKeyVault(client, key.name).generate(CONTEXT)
    client.update_key_properties(key.name, key.properties.version, enabled=True)
    assert provider.unwrap(made.recipients, CONTEXT) == made.data_key


@pytest.mark.parametrize(
    ("attributes", "now"), [({"exp": 2000}, 2000.0), ({"nbf": 2000}, 1999.0), ({"nbf": 1, "exp": 2}, 5.0)]
)
def test_a_key_wraps_only_while_it_is_valid(vault, client, attributes, now):
    """The vault would see to that; here nobody else does."""
    name = new_rsa(client)
    vault.keys[name][-1].attributes.update(attributes)
    with pytest.raises(KeyRefused, match="not valid now"):
        AzureKeyVault(client, name, clock=lambda: now).generate(CONTEXT)
    valid = AzureKeyVault(client, name, clock=lambda: attributes.get("nbf", 0) + 0.5)
    assert valid.unwrap(valid.generate(CONTEXT).recipients, CONTEXT)


def test_a_key_that_expires_while_it_is_kept_wraps_no_more(vault, client):
    now = [1000.0]
    name = new_rsa(client)
    vault.keys[name][-1].attributes["exp"] = 2000
    provider = AzureKeyVault(client, name, clock=lambda: now[0])
    provider.generate(CONTEXT)
    now[0] = 2000.0
    with pytest.raises(KeyRefused, match="not valid now"):
        provider.generate(CONTEXT)


def test_a_key_of_another_kind_is_refused(vault, client):
    name = client.create_ec_key(fresh()).name
    with pytest.raises(KeyRefused, match="kind EC"):
        AzureKeyVault(client, name).generate(CONTEXT)
    signing = client.create_rsa_key(fresh(), key_operations=["sign", "verify"]).name
    with pytest.raises(KeyRefused, match="not for wrapKey"):
        AzureKeyVault(client, signing).generate(CONTEXT)


def bundle(**changes) -> bytes:
    import json

    key = {"kid": f"https://v/keys/orders/{'a' * 32}", "kty": "RSA", "n": "", "e": "AQAB"}
    return json.dumps({"key": {**key, **changes}, "attributes": {}}).encode()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{}", KeyUnavailable),
        (b'{"key": []}', KeyUnavailable),
        (bundle(kid="https://v/keys/other/" + "a" * 32), KeyRefused),
        (bundle(kid="https://v/keys/orders/../x"), KeyRefused),
        (bundle(kid=None), KeyRefused),
        (bundle(n=None), KeyRefused),
        (bundle(n="!"), KeyRefused),
        (bundle(n=base64.urlsafe_b64encode(b"\xff" * 128).decode()), KeyRefused),
        (bundle(e="AA"), KeyRefused),
        (bundle(kty=None), KeyRefused),
    ],
)
def test_an_answer_that_is_no_key_is_not_believed(vault, client, body, kind):
    vault.answers.append(Answer(200, body=body))
    with pytest.raises(kind):
        AzureKeyVault(client, "orders").generate(CONTEXT)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_data_key_of_a_wrong_size_is_broken(vault, client, size):
    """Whoever has the public key can wrap what is no data key: that message will never open."""
    key = client.create_rsa_key(fresh())
    (recipient,) = AzureKeyVault(client, key.name).generate(CONTEXT).recipients
    with CryptographyClient(key, AnyCredential(), **vault.options) as forger:
        wrapped = forger.wrap_key("RSA-OAEP-256", bytes(size)).encrypted_key
    with pytest.raises(KeyBroken, match=f"wrapped key of {size} bytes"):
        AzureKeyVault(client, key.name).unwrap(
            [recipient._replace(wrapped_key=wrapped + recipient.wrapped_key[-16:])], CONTEXT
        )


def test_an_answer_of_another_key_is_not_believed(vault, client):
    name = new_rsa(client)
    (recipient,) = AzureKeyVault(client, name).generate(CONTEXT).recipients
    vault.answers.append(Answer(200, body=b'{"kid": "https://v/keys/other/1", "value": "%s"}' % (b"A" * 43)))
    with pytest.raises(NotMine) as caught:
        AzureKeyVault(client, name).unwrap([recipient], CONTEXT)
    assert "another key" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "answer", [b"{}", b'{"kid": "%s"}', b'{"kid": "%s", "value": null}', b'{"value": "AAAA"}']
)
def test_half_an_answer_says_nothing_of_the_message(vault, client, answer):
    """No good message may be refused over it."""
    name = new_rsa(client)
    (recipient,) = AzureKeyVault(client, name).generate(CONTEXT).recipients
    kid = f"{vault.url}/keys/{name}/{vault.keys[name][-1].name}".encode()
    vault.answers.append(Answer(200, body=answer.replace(b"%s", kid)))
    with pytest.raises(KeyUnavailable):
        AzureKeyVault(client, name).unwrap([recipient], CONTEXT)


@pytest.mark.parametrize("value", ["", "AAAA", "!"])
def test_an_hsm_that_wraps_nothing_is_not_believed(vault, client, value):
    provider = AzureKeyVault(client, new_oct(client))
    provider.generate(CONTEXT)
    vault.answers.append(Answer(200, body=b'{"value": "%s"}' % value.encode()))
    with pytest.raises(KeyRefused, match="bytes"):
        provider.generate(CONTEXT)


def test_an_hsm_that_wraps_with_another_version_is_not_believed(vault, client):
    """The kid would name a version that cannot unwrap it: a message that never opens."""
    provider = AzureKeyVault(client, new_oct(client))
    provider.generate(CONTEXT)
    vault.answers.append(Answer(200, body=b'{"kid": "https://v/keys/orders/1", "value": "%s"}' % (b"A" * 54)))
    with pytest.raises(KeyRefused, match="another key"):
        provider.generate(CONTEXT)


# -- asyncio clients ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def asyncio_client_of(vault):
    async with AsyncKeyClient(vault.url, AnyAsyncCredential(), **vault.options) as asyncio_client:
        yield asyncio_client
    await let_transports_close()


async def let_transports_close():
    """aiohttp closes TLS connections in the turns of the loop that follow."""
    await asyncio.sleep(0.05)


def asyncio_sealer(client, name) -> Sealer:
    policy = Policy(name="orders", destinations=["kafka:orders"], keys=["main"])
    return Sealer(sender="shop", policies=[policy], keys={"main": AzureKeyVault(client, name)})


def test_a_sealer_awaits_an_asyncio_client_on_its_own_loop(vault, client):
    name = new_rsa(client)
    vault.asked.clear()

    async def both():
        async with asyncio_client_of(vault) as asyncio_client:
            sealer = asyncio_sealer(asyncio_client, name)
            envelopes = await asyncio.gather(
                *(sealer.aseal(b"%d" % number, destination="kafka:orders") for number in range(100))
            )
            sealer.close()
            opened = await asyncio.gather(
                *(sealer.aopen(envelope, destination="kafka:orders") for envelope in envelopes)
            )
            # What is cached needs no loop.
            assert sealer.open(envelopes[0], destination="kafka:orders").body == b"0"
            return [message.body for message in opened]

    assert asyncio.run(both()) == [b"%d" % number for number in range(100)]
    assert vault.asked == {"get": 1, "unwrapkey": 1}


def test_a_sync_call_on_the_loop_of_an_asyncio_client_is_told_what_to_call(vault, client):
    name = new_rsa(client)

    async def blocking():
        async with asyncio_client_of(vault) as asyncio_client:
            sealer = asyncio_sealer(asyncio_client, name)
            with pytest.raises(ConfigError, match=r"await Sealer\.aseal"):
                sealer.seal(b"body", destination="kafka:orders")
            envelope = await sealer.aseal(b"body", destination="kafka:orders")
            sealer.close()
            with pytest.raises(ConfigError, match=r"aopen"):
                sealer.open(envelope, destination="kafka:orders")
            # In a thread, a sync call waits for the loop.
            with ThreadPoolExecutor(1) as pool:
                opened = await asyncio.get_running_loop().run_in_executor(
                    pool, lambda: sealer.open(envelope, destination="kafka:orders")
                )
            assert opened.body == b"body"

    asyncio.run(blocking())


def test_an_asyncio_client_whose_loop_has_ended_is_a_passing_fault(vault, client):
    async def made():
        async with asyncio_client_of(vault) as asyncio_client:
            return AzureKeyVault(asyncio_client, "orders")

    provider = asyncio.run(made())
    with pytest.raises(KeyUnavailable, match="no answer"):
        provider.generate(CONTEXT)


def test_a_forked_child_does_not_wait_for_the_loop_of_its_parent(vault, client):
    async def forked():
        async with asyncio_client_of(vault) as asyncio_client:
            provider = AzureKeyVault(asyncio_client, "orders")
            provider._vault.begin_again()  # what fork calls in the child
            with pytest.raises(KeyUnavailable, match="no answer"):
                await asyncio.to_thread(provider.generate, CONTEXT)

    asyncio.run(forked())


def test_an_answer_that_does_not_come_on_the_loop_is_given_up(vault, client, monkeypatch):
    monkeypatch.setattr("postseal.core.providers._azure_rest._PATIENCE", 0.1)

    async def hung():
        async with asyncio_client_of(vault) as asyncio_client:
            provider = AzureKeyVault(asyncio_client, "orders")
            answer = Answer(hang=True)
            vault.answers.append(answer)
            with pytest.raises(KeyUnavailable, match="TimeoutError"):
                await asyncio.to_thread(provider.generate, CONTEXT)
            answer.released.set()

    asyncio.run(hung())


def test_an_asyncio_client_is_for_a_coroutine(vault):
    asyncio_client = AsyncKeyClient(vault.url, AnyAsyncCredential(), **vault.options)
    with pytest.raises(ConfigError, match="in a coroutine"):
        AzureKeyVault(asyncio_client, "orders")


# -- configuration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["key", "also_open"])
@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("", "neither"),
        ("or_ders", "neither"),
        ("orders/", "neither"),
        ("https://v.vault.azure.net/secrets/orders", "neither"),
        ("http://v.vault.azure.net/keys/orders", "neither"),
        ("https://v.vault.azure.net/keys/orders", r"is of https://v\.vault.*the client is of https://127"),
        ("https://v.vault.azure.net/keys/orders/0123456789abcdef0123456789abcdef", "leave the version out"),
    ],
)
def test_a_name_that_cannot_be_of_a_key_is_refused_at_construction(client, option, key, told):
    options = {"key": key} if option == "key" else {"key": "orders", "also_open": [key]}
    with pytest.raises(ConfigError, match=told) as caught:
        AzureKeyVault(client, **options)
    assert option in str(caught.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"also_open": "orders"}, "also_open must be a list"),
        ({"refresh": 0}, "refresh"),
        ({"refresh": "5m"}, "refresh"),
    ],
)
def test_a_wrong_option_is_named(client, options, told):
    with pytest.raises(ConfigError, match=told):
        AzureKeyVault(client, "orders", **options)


def test_something_else_than_a_key_client_is_refused(vault, client):
    with pytest.raises(ConfigError, match="KeyClient, sync or aio, not str"):
        AzureKeyVault("https://v.vault.azure.net", "orders")
    with pytest.raises(ConfigError, match="not CryptographyClient"):
        AzureKeyVault(client.get_cryptography_client("orders"), "orders")


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("verify_chalenge_resource", "did you mean 'verify_challenge_resource'"),
        ("conection_verify", "did you mean 'connection_verify'"),
        ("apiversion", "did you mean 'api_version'"),
    ],
)
def test_a_mistyped_option_is_told_with_the_nearest(option, told):
    """The SDK takes any name, and does nothing with it."""
    with pytest.raises(ConfigError, match=told) as caught:
        AzureKeyVault.connect("https://v.vault.azure.net", "orders", AnyCredential(), **{option: False})
    assert option in str(caught.value)


@pytest.mark.parametrize(
    ("vault_url", "credential", "options", "told"),
    [
        ("", AnyCredential(), {}, "vault_url"),
        ("http://v.vault.azure.net", AnyCredential(), {}, "https"),
        ("https://v.vault.azure.net", None, {}, "credential"),
        ("https://v.vault.azure.net", AnyCredential(), {"api_version": "7.66"}, "did you mean '7.6'"),
    ],
)
def test_a_vault_that_cannot_be_is_refused_before_any_message_moves(vault_url, credential, options, told):
    with pytest.raises(ConfigError, match=told):
        AzureKeyVault.connect(vault_url, "orders", credential, **options)


@pytest.mark.parametrize("version", [version.value for version in ApiVersion])
def test_every_api_version_of_the_sdk_is_taken_and_sent(vault, client, version):
    name = new_rsa(client)
    vault.requests.clear()
    with vault.client(api_version=version) as versioned:
        provider = AzureKeyVault(versioned, name)
        assert provider.unwrap(provider.generate(CONTEXT).recipients, CONTEXT)
    assert {request.query for request in vault.requests} == {f"api-version={version}"}


def test_capitals_ports_and_slashes_make_no_other_key():
    same = {"https://V.vault.azure.net/keys/Orders", "https://v.vault.azure.net:443/keys/orders/"}
    assert len({key_id_of(identifier) for identifier in same}) == 1
    assert key_id_of("https://w.vault.azure.net/keys/orders") not in {key_id_of(each) for each in same}
    with pytest.raises(ConfigError, match="not the identifier"):
        key_id_of("orders")


# -- what shows of a key -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", [new_rsa, new_oct])
def test_the_network_log_of_the_sdk_shows_no_data_key(vault, client, caplog, new):
    """D3. The last lines show that the test can fail: switched on, the SDK logs the whole answer."""
    name = new(client)
    caplog.set_level(logging.DEBUG)
    with vault.client(logging_enable=True) as loud:
        provider = AzureKeyVault(loud, name)
        made = provider.generate(CONTEXT)
        provider.unwrap(made.recipients, CONTEXT)
        assert "unwrapkey" in caplog.text
        assert not [form for form in forms_of(made.data_key) if form in caplog.text]
        caplog.clear()
        (recipient,) = made.recipients
        algorithm = "RSA-OAEP-256" if recipient.algorithm == RSA_OAEP_256 else "A256KW"
        loud.get_cryptography_client(name).unwrap_key(algorithm, recipient.wrapped_key[:-16])
        assert [form for form in forms_of(made.data_key) if form in caplog.text]


@pytest.mark.parametrize(
    "answer", [Answer(503), Answer(403, "Forbidden"), Answer(hang_up=True)], ids=["503", "403", "gone"]
)
def test_no_data_key_shows_in_the_traceback_of_a_failed_wrap(vault, client, answer):
    """D3: error reporters print the locals of every frame. The SDK's own errors hold the request: they are not handed on."""
    provider = AzureKeyVault(client, new_oct(client))
    provider.generate(CONTEXT)
    vault.answers.append(answer)
    secret = bytes(range(100, 132))
    with pytest.raises((KeyUnavailable, KeyRefused)) as caught:
        provider.wrap(bytes(secret), CONTEXT)
    shown = shown_by_tracebacks(caught.value)
    assert "failure=" in shown  # locals were captured
    assert not [form for form in forms_of(secret) if form in shown]
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("context", [CONTEXT, OTHER])
def test_no_data_key_shows_in_the_traceback_of_an_answer_that_is_not_believed(vault, client, context):
    """D3."""
    name = new_rsa(client)
    provider = AzureKeyVault(client, name)
    secret = bytes(range(100, 132))
    (recipient,) = provider.wrap(bytes(secret), CONTEXT)
    if context is CONTEXT:
        value = base64.urlsafe_b64encode(secret).rstrip(b"=")
        vault.answers.append(Answer(200, body=b'{"kid": "https://v/keys/other/1", "value": "%s"}' % value))
    with pytest.raises((NotMine, KeyBroken)) as caught:
        provider.unwrap([recipient], context)
    shown = shown_by_tracebacks(caught.value)
    assert "failures=" in shown  # locals were captured
    assert not [form for form in forms_of(secret) if form in shown]


def test_it_shows_its_key_and_nothing_of_the_credential(vault, client):
    assert repr(AzureKeyVault(client, "orders")) == f"<AzureKeyVault {vault.url}/keys/orders>"


# -- beside others -----------------------------------------------------------------------------------------------------


def test_one_message_opens_through_either_of_two_clouds(vault, client):
    """A5, B12: each recipient opens alone, and a third cannot."""
    azure, local = AzureKeyVault(client, new_rsa(client)), local_keys("elsewhere")
    made = CombinedKeys([azure, local]).generate(CONTEXT)
    assert azure.unwrap(made.recipients, CONTEXT) == local.unwrap(made.recipients, CONTEXT) == made.data_key
    with pytest.raises(NotMine):
        AzureKeyVault(client, new_rsa(client)).unwrap(made.recipients, CONTEXT)


def test_a_recipient_for_a_certificate_is_not_taken_for_one_of_a_vault(vault, client):
    """-41 and -5 are anybody's: only a kid that begins as ours does is ours."""
    provider = AzureKeyVault(client, new_rsa(client))
    vault.asked.clear()
    for algorithm in (RSA_OAEP_256, A256KW):
        with pytest.raises(NotMine):
            provider.unwrap([Recipient(algorithm, os.urandom(24), bytes(272))], CONTEXT)
    assert not vault.asked


# -- without its extra -------------------------------------------------------------------------------------------------


def test_without_the_sdk_the_extra_is_named():
    code = """
import sys
sys.modules["azure.keyvault"] = None
sys.modules["azure.keyvault.keys"] = None
import postseal.core
try:
    postseal.core.AzureKeyVault
except postseal.core.MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'postseal[azure]'" in done.stdout
