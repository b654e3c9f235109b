"""What a policy file puts around a key service."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from postseal.core import AwsKms, CombinedKeys, KeyUnavailable, Sealer
from postseal.core.config import PolicyFile
from postseal.core.config._keys import Made
from postseal.core.resilience import Breaker, Deadline, Limited, Limiter, Retrying, measures
from tests.core.config.kit import NOW
from tests.core.stand_ins import WatchedKeys, local_keys

PAGE = Path(__file__).parents[3] / "docs" / "resilience.md"
AWS = """\
sender = "billing-api"

[keys.main]
provider = "aws-kms"
key_id = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"
MORE

[[policy]]
name = "orders"
destinations = ["kafka:orders"]
keys = ["main"]
"""
GIVEN = AWS.replace('"aws-kms"', '"given"').replace(
    'key_id = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"\n', ""
)
ALL = """\
retry = { attempts = 2, first_wait = "1ms", budget = 50 }
deadline = "50s"
breaker = { failures = 3, wait = "1h", max_wait = "1h" }
limit = { calls = 100, per = "1s" }"""


@pytest.fixture(autouse=True)
def no_profile(monkeypatch):
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")


def resolved(tmp_path, text, more="", **options):
    path = tmp_path / "policy.toml"
    path.write_text(text.replace("MORE", more))
    return PolicyFile.read(path, now=NOW, keys=options.get("keys", ())).resolve(**options)


def main_of(settings):
    return settings.arguments["keys"]["main"]


def layers(provider):
    found = []
    while provider is not None:
        found.append(type(provider))
        provider = getattr(provider, "inner", None)
    return found


def attempts_of(provider):
    while not isinstance(provider, AwsKms):
        provider = provider.inner
    return provider._kms._client.meta.config.retries["total_max_attempts"]


def test_nothing_is_around_a_key_service_of_which_nothing_is_said(tmp_path):
    provider = main_of(resolved(tmp_path, AWS))
    assert layers(provider) == [Made, AwsKms]
    assert attempts_of(provider) == 3


def test_what_is_said_goes_around_it_in_the_order_of_the_docs(tmp_path):
    provider = main_of(resolved(tmp_path, AWS, ALL))
    assert layers(provider) == [Retrying, Breaker, Limited, Deadline, Made, AwsKms]
    assert {measure.key for measure in measures(provider)} == {"main"}
    assert (provider._attempts, provider._budget._share, provider.inner.inner.inner._seconds) == (2, 0.5, 50)


@pytest.mark.parametrize(
    ("more", "attempts"),
    [
        ("retry = {}", 1),
        ('limit = { calls = 9, per = "1s" }', 1),
        ('limit = { calls = 9, per = "1s" }\nmax_attempts = 2', 2),
        ("breaker = {}", 3),
        ('deadline = "2s"\nmax_attempts = 5', 5),
    ],
)
def test_there_are_no_tries_within_tries_and_each_counts_against_the_quota(tmp_path, more, attempts):
    """The client's own attempts are one, where they are counted or made outside of it."""
    assert attempts_of(main_of(resolved(tmp_path, AWS, more))) == attempts


def test_azure_and_vault_have_it_too(tmp_path):
    pytest.importorskip("azure.keyvault.keys")
    text = AWS.replace('"aws-kms"', '"azure-key-vault"').replace(
        'key_id = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"',
        'key = "https://v.vault.azure.net/keys/orders"',
    )
    provider = main_of(resolved(tmp_path, text, ALL))
    retries = provider.inner.inner.inner.inner.inner._vault._client._client._client._pipeline
    assert layers(provider)[:5] == [Retrying, Breaker, Limited, Deadline, Made]
    totals = [
        policy.total_retries
        for node in retries._impl_policies
        if (policy := getattr(node, "_policy", node)) and hasattr(policy, "total_retries")
    ]
    assert totals == [0]
    text = AWS.replace('"aws-kms"', '"vault"').replace(
        'key_id = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"',
        'url = "http://127.0.0.1:1"\nkey = "orders"\ntoken = { env = "T" }',
    )
    provider = main_of(resolved(tmp_path, text, ALL, environ={"T": "t"}))
    assert layers(provider)[:5] == [Retrying, Breaker, Limited, Deadline, Made]


def test_what_the_program_hands_in_has_it_where_the_section_says_given(tmp_path):
    service = WatchedKeys()
    provider = main_of(resolved(tmp_path, GIVEN, ALL, keys={"main": service}))
    assert layers(provider)[:4] == [Retrying, Breaker, Limited, Deadline]
    assert provider.inner.inner.inner.inner is service
    assert main_of(resolved(tmp_path, GIVEN, keys={"main": service})) is service
    assert (
        main_of(resolved(tmp_path, AWS, ALL, keys={"main": service})) is service
    )  # in the place of all of it


def test_a_file_that_is_read_again_keeps_breakers_and_limiters_of_what_has_not_changed(tmp_path):
    service = WatchedKeys()
    before = resolved(tmp_path, GIVEN, ALL, keys={"main": service})
    again = resolved(tmp_path, GIVEN, ALL, keys={"main": service}, before=before)
    other = resolved(tmp_path, GIVEN, ALL.replace("100", "99"), keys={"main": service}, before=before)
    assert main_of(again) is main_of(before)
    assert main_of(other) is not main_of(before)
    assert main_of(resolved(tmp_path, AWS, ALL, before=(aws := resolved(tmp_path, AWS, ALL)))) is main_of(aws)


def test_keys_that_name_one_quota_share_one_limiter(tmp_path):
    text = GIVEN.replace('keys = ["main"]', 'keys = ["main", "second", "third"]').replace(
        "MORE",
        """limit = { calls = 9, per = "1s", shared = "kms" }
[keys.second]
provider = "given"
limit = { calls = 9, per = "1s", shared = "kms" }
[keys.third]
provider = "given"
limit = { calls = 9, per = "1s" }""",
    )
    names = ("main", "second", "third")
    providers = {name: WatchedKeys(local_keys(name)) for name in names}
    keys = resolved(tmp_path, text, keys=providers).arguments["keys"]
    first, second, third = (keys[name]._limiter for name in names)
    assert isinstance(first, Limiter)
    assert first is second
    assert first is not third


def test_combined_keys_hedge(tmp_path):
    text = GIVEN.replace(
        "MORE",
        """breaker = {}
[keys.second]
provider = "given"
[keys.both]
provider = "combined"
keys = ["main", "second"]
hedge = "1ms\"""",
    ).replace('keys = ["main"]\n', 'keys = ["both"]\n')
    path = tmp_path / "policy.toml"
    path.write_text(text)
    services = {name: WatchedKeys(local_keys(name)) for name in ("main", "second")}
    sealer = Sealer.from_file(path, keys=services)
    (both,) = sealer.key_providers
    assert isinstance(both, CombinedKeys)
    envelope = sealer.seal(b"order", destination="kafka:orders")
    services["main"].gate.clear()
    try:
        assert sealer.open(envelope, destination="kafka:orders").body == b"order"
    finally:
        services["main"].gate.set()
    told = {
        (measure.metric.rpartition(".")[2], measure.key, measure.what): measure.value
        for measure in measures(both)
    }
    assert told["hedges", "both", ""] == 1
    assert told["breaker", "main", "unwrap"] == 0


def test_the_example_of_the_docs_has_no_mistake(read):
    example = PAGE.read_text("utf-8").split("```toml\n")[1].split("```")[0]
    policy = '[[policy]]\nname = "orders"\ndestinations = ["kafka:orders"]\nkeys = ["both"]\n'
    file = read(f'sender = "shop"\n{example}\n{policy}')
    assert file.warnings == ()
    comments = [part.split("```")[0] for part in example.split("# ")[1:]]
    for option, comment in zip(("retry", "breaker"), comments, strict=False):
        spelled = example.replace(f"{option} = {{}}", f"{option} = {comment.splitlines()[0]}", 1)
        assert read(f'sender = "shop"\n{spelled}\n{policy}').options["keys"]["main"][option]


def test_a_sealer_of_such_a_file_goes_on_stale_and_loses_nothing(tmp_path):
    """B11, B14: what is unavailable raises KeyUnavailable, whatever ended it, and opens when the service is back."""
    service = WatchedKeys()
    path = tmp_path / "policy.toml"
    path.write_text(GIVEN.replace("MORE", ALL.replace('wait = "1h", max_wait = "1h"', 'wait = "1ms"')))
    sealer = Sealer.from_file(path, keys={"main": service})
    envelope = sealer.seal(base64.b64encode(b"order"), destination="kafka:orders")
    sealer.close()
    service.failing = KeyUnavailable("no answer")
    for _ in range(10):
        with pytest.raises(KeyUnavailable):
            sealer.open(envelope, destination="kafka:orders")
    service.failing = None
    while True:
        try:
            opened = sealer.open(envelope, destination="kafka:orders")
            break
        except KeyUnavailable:
            continue
    assert opened.body == base64.b64encode(b"order")
