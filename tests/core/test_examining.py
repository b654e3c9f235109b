"""What an examination of a policy file finds, at doubles of the key services; at real ones: integration/keys/test_doctor.py."""

from __future__ import annotations

import base64
import shutil
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from cryptography.hazmat.primitives.asymmetric import x25519
from moto import mock_aws

from postseal.core import (
    AwsKms,
    AzureKeyVault,
    BranchKeys,
    CombinedKeys,
    DelegatedKey,
    KeyRefused,
    KeyRing,
    PublicKeyRecipients,
    RecipientKey,
    RedisLedger,
    SqliteLedger,
    VaultTransit,
    examining,
)
from postseal.core.examining import examine
from postseal.core.findings import Examined, clock_of, ends_of, room_at
from postseal.core.keys import KeyContext
from postseal.core.providers.aws_kms_recipients import AwsKmsRsaKey
from postseal.core.providers.aws_kms_signing import AwsKmsEs256Key, AwsKmsHmacKey
from postseal.core.providers.azure_recipients import AzureRsaKey
from postseal.core.providers.azure_signing import AzureEs256Key
from postseal.core.providers.branch_stores import SqliteBranches
from postseal.core.providers.service_recipients import ServiceRecipients
from postseal.core.resilience import Limiter, measures, resilient
from tests.core.key_vault import KeyVaultDouble
from tests.core.redis_ledger import StandIn
from tests.core.stand_ins import WatchedKeys, local_keys
from tests.core.transit import TransitDouble

SECRET = base64.b64encode(bytes(range(32))).decode()
FILE = """\
sender = "billing-api"

[keys.main]
provider = "given"

[signers.billing]
algorithm = "hmac-sha256"
keys = [{ id = "2026-10", state = "active", secret = { env = "S" } }]

[[policy]]
name = "orders"
destinations = ["rabbitmq:shop/orders.#"]
protection = "privacy"
keys = ["main"]
sign = "billing"
senders = ["billing-api"]
bind_headers = ["tenant"]
"""


SLOW = examining._SLOW


@pytest.fixture
def found(tmp_path, monkeypatch):
    """Examines a file with *main* as its key provider; returns findings by grade. A busy machine is not found slow."""
    monkeypatch.setattr("postseal.core.examining._SLOW", 60.0)

    def found(main, text=FILE, *, grade=None, **options):
        path = tmp_path / "postseal.toml"
        path.write_text(text)
        given = {} if main is None else {"main": main}
        all_found = list(examine(path, keys=given, environ={"S": SECRET}, **options))
        assert {each.grade for each in all_found} <= {"good", "warning", "bad"}
        told = " ".join(" ".join(each) for each in all_found)
        assert SECRET not in told
        assert "\n" not in told
        for each in all_found:
            assert each.what
            assert each.says
            assert each.mend or each.grade == "good"
        return [each for each in all_found if grade is None or each.grade == grade]

    return found


def says(findings):
    return " | ".join(f"{each.what}: {each.says} -> {each.mend}" for each in findings)


def test_what_works_is_said_to_work(found):
    keys = WatchedKeys()
    findings = found(keys)
    assert [each for each in findings if each.grade != "good"] == []
    told = says(findings)
    for words in (
        "no mistake",
        "signers.billing: key '2026-10' signs",
        "keys.main, policy orders: makes a data key in",
        "policy orders: a message is sealed and opened in",
        "bytes are added to each",
    ):
        assert words in told
    # A data key is tried, and once more in a message; a context of another destination is tried once.
    assert (len(keys.made), len(keys.unwraps)) == (2, 3)


def test_whoever_looks_is_told_what_is_looked_at(found):
    doing = []
    found(WatchedKeys(), doing=doing.append)
    assert doing[1:] == [
        "fetching secrets",
        "keys.main: its state",
        "keys.main, policy orders: a data key",
        "policy orders: a message",
    ]


def test_all_mistakes_of_the_file_are_findings_with_their_lines(found):
    findings = found(
        WatchedKeys(), FILE.replace('protection = "privacy"', 'protection = "privcy"\nmode = "off-ish"')
    )
    assert {each.grade for each in findings} == {"bad"}
    assert [each.what.rpartition(":")[2] for each in findings] == ["13", "14"]


def test_a_secret_that_is_not_there_is_a_finding(found):
    (finding,) = found(WatchedKeys(), FILE.replace('env = "S"', 'env = "SS"'), grade="bad")
    assert "the environment has no SS" in finding.says


def test_what_the_file_warns_of_is_a_warning(found):
    (finding,) = found(WatchedKeys(), FILE + '[keys.unused]\nprovider = "given"\n', grade="warning")
    assert "used by no policy" in finding.says


# -- rights ------------------------------------------------------------------------------------------------------------


class Denying(WatchedKeys):
    """Says no to one verb."""

    def __init__(self, verb, error=None, inner=None):
        super().__init__(inner)
        self.verb, self.error = verb, error or KeyRefused(f"{verb}: not allowed")

    def generate(self, context):
        if self.verb == "generate":
            raise self.error
        return super().generate(context)

    def wrap(self, data_key, context):
        if self.verb == "wrap":
            raise self.error
        return super().wrap(data_key, context)

    def unwrap(self, recipients, context):
        if self.verb == "unwrap":
            raise self.error
        return super().unwrap(recipients, context)


@pytest.mark.parametrize(
    ("verb", "role", "grade", "words"),
    [
        ("generate", "both", "bad", "right to make data keys"),
        ("generate", "producer", "bad", "right to make data keys"),
        ("generate", "consumer", "warning", "which a consumer need not"),
        ("unwrap", "both", "bad", "right to decrypt"),
        ("unwrap", "consumer", "bad", "right to decrypt"),
        ("unwrap", "producer", None, ""),
    ],
)
def test_a_right_that_is_missing_is_named_where_the_role_needs_it(found, verb, role, grade, words):
    findings = [each for each in found(Denying(verb), role=role) if each.grade != "good"]
    assert [each.grade for each in findings] == ([grade] if grade else [])
    assert words in says(findings)


def test_a_key_that_is_not_the_first_is_tried_for_wrapping(found):
    """The first makes the data key, and the others wrap it: those are two rights."""
    text = (
        FILE.replace('keys = ["main"]', 'keys = ["main", "archive"]') + '[keys.archive]\nprovider = "given"\n'
    )
    path_keys = {"archive": Denying("wrap", inner=local_keys("archive"))}

    def look(main):
        import tempfile
        from pathlib import Path

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "p.toml"
            path.write_text(text)
            return [
                each
                for each in examine(path, keys={"main": main, **path_keys}, environ={"S": SECRET})
                if each.grade == "bad"
            ]

    (finding,) = look(WatchedKeys(local_keys("main")))
    assert finding.what == "keys.archive, policy orders"
    assert "so it wraps" in finding.mend


def test_parts_of_combined_keys_are_tried_one_by_one(found):
    """A dead one does not hide behind one that opens."""
    both = CombinedKeys([WatchedKeys(local_keys("a")), Denying("unwrap", inner=local_keys("b"))], hedge=50)
    (finding,) = found(both, grade="bad")
    assert finding.what == "keys.main[2], policy orders"


def test_one_that_only_wraps_is_no_finding(found):
    public = PublicKeyRecipients([RecipientKey(x25519.X25519PrivateKey.generate().public_key())])
    both = CombinedKeys([WatchedKeys(), public], hedge=50)
    findings = found(both)
    assert [each for each in findings if each.grade != "good"] == []
    assert "opens nothing here" in says(findings)


def test_a_policy_without_data_keys_is_tried_by_a_message(found):
    text = FILE.replace('keys = ["main"]', 'keys = ["main"]\ndirect = true')
    findings = found(local_keys(), text, grade="good")
    assert "data key" not in says(findings)
    assert "a message is sealed and opened" in says(findings)

    class Denied:
        def __init__(self):
            self._keys = local_keys()

        def __getattr__(self, name):
            return getattr(self._keys, name)

        def generate(self, context):
            raise AssertionError("there is no data key to make")

        wrap = unwrap = generate
        most_direct, anybody_encrypts = 4096, False

        def encrypt(self, *_):
            raise KeyRefused("no right")

        decrypt = encrypt

    (finding,) = found(Denied(), text, grade="bad")
    assert "right that it names" in finding.mend


def test_a_provider_that_does_not_bind_is_found_out(found):
    class Loose(WatchedKeys):
        def unwrap(self, recipients, context):
            return super().unwrap(recipients, KeyContext("orders", "rabbitmq:shop/orders.doctor"))

    (finding,) = found(Loose(), grade="bad")
    assert "another destination" in finding.says


def test_a_slow_key_service_is_a_warning(found, monkeypatch):
    monkeypatch.setattr("postseal.core.examining._SLOW", SLOW)
    ticks = iter(range(0, 1000, 2))
    monkeypatch.setattr("postseal.core.examining.time.perf_counter", lambda: float(next(ticks)))
    (finding,) = found(WatchedKeys(), grade="warning")
    assert "for which messages wait" in finding.says


def test_what_nobody_expected_ends_nothing_and_is_not_quoted(found):
    class Broken(WatchedKeys):
        def generate(self, context):
            raise RuntimeError("the text may quote a key")

    findings = found(Broken())
    assert "could not be looked at: RuntimeError" in says(findings)
    assert "quote a key" not in says(findings)


def test_what_goes_around_a_provider_is_said_and_looked_through(found):
    findings = found(resilient(local_keys(), limiter=Limiter(400, per=10)))
    assert "not for production" in says([each for each in findings if each.grade == "warning"])
    around = "3 tries, a breaker that opens after 5 for 2 s, 400 calls in 10 s, 5 s for a try"
    assert f"keys.main: asked with {around} ->" in says(findings)


def test_what_wraps_branch_keys_is_asked(found, tmp_path):
    """A key service that is taken away is noticed when a branch key ends, which may be in an hour."""
    provider = BranchKeys(resilient(local_keys()), SqliteBranches(tmp_path / "branches.db"), "orders")
    told = says(found(provider))
    assert "not for production" in told
    assert "a breaker that opens after 5" in told
    assert "a message is sealed and opened" in told
    assert {measure.metric for measure in measures(provider)} >= {"postseal.key_service.breaker"}


def test_combined_keys_that_do_not_hedge_are_a_warning(found):
    parts = [WatchedKeys(local_keys("a")), WatchedKeys(local_keys("b"))]
    (finding,) = found(CombinedKeys(parts), grade="warning")
    assert "hedge" in finding.mend
    assert found(CombinedKeys(parts, hedge=0.2), grade="warning") == []
    assert "silent for 0.2 s" in says(found(CombinedKeys(parts, hedge=0.2)))


def test_only_the_policies_that_are_named_are_tried(found):
    keys = WatchedKeys()
    text = FILE + '[[policy]]\nname = "logs"\ndestinations = ["kafka:logs"]\nkeys = ["main"]\n'
    assert "policy logs" in says(found(keys, text))
    assert "policy orders" not in says(found(keys, text, policies=["logs"]))


def test_a_ring_that_only_verifies_is_a_warning_unless_it_is_a_consumers(found):
    text = FILE.replace('state = "active"', 'state = "pending"')
    (finding,) = found(WatchedKeys(), text, grade="warning")
    assert "signs nothing here" in finding.says
    assert found(WatchedKeys(), text, grade="warning", role="consumer") == []


def test_a_retired_key_that_verifies_no_more_is_to_be_taken_away(found):
    second = '{ id = "old", state = "retired", retired_until = 2026-01-01, secret = { env = "S" } }'
    text = FILE.replace('{ env = "S" } }]', '{ env = "S" } }, ' + second + "]")
    (finding,) = found(WatchedKeys(), text, grade="warning")
    assert (finding.what, finding.mend) == ("signers.billing", "take it away")


# -- AWS KMS -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def kms():
    with mock_aws():
        client = boto3.client(
            "kms", region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b"
        )
        client.arn = client.create_key()["KeyMetadata"]["Arn"]
        client.enable_key_rotation(KeyId=client.arn)
        client.denied, client.away = set(), False

        def hear(model, **_):
            if client.away:
                raise EndpointConnectionError(endpoint_url="https://kms.example")
            if model.name in client.denied:
                raise ClientError({"Error": {"Code": "AccessDeniedException"}}, model.name)

        client.meta.events.register("before-call.kms", hear)
        yield client


def test_a_key_of_aws_kms_that_works(found, kms):
    findings = found(AwsKms(kms, kms.arn))
    assert [each for each in findings if each.grade != "good"] == []
    assert f"{kms.arn} is enabled" in says(findings)
    assert "rotated by AWS KMS" in says(findings)


@pytest.mark.parametrize("state", ["disabled", "deleted"])
def test_a_key_that_somebody_took_away_is_named_with_the_command_that_brings_it_back(found, kms, state):
    """Also where it is only to open what it wrapped once."""
    other = kms.create_key()["KeyMetadata"]["Arn"]
    if state == "disabled":
        kms.disable_key(KeyId=other.rpartition("/")[2])
    else:
        kms.schedule_key_deletion(KeyId=other.rpartition("/")[2], PendingWindowInDays=7)
    (finding,) = found(AwsKms(kms, kms.arn, also_open=[other]), grade="bad")
    assert finding.what == "keys.main"
    words = {"disabled": "aws kms enable-key --key-id", "deleted": "cancel-key-deletion"}
    assert words[state] in finding.mend
    assert other in finding.mend
    if state == "deleted":
        assert f"{datetime.now(UTC) + timedelta(days=7):%Y-%m-%d}" in finding.says


def test_a_key_of_another_kind_is_found_out(found, kms):
    other = kms.create_key(KeyUsage="SIGN_VERIFY", KeySpec="ECC_NIST_P256")["KeyMetadata"]["Arn"]
    assert "SYMMETRIC_DEFAULT" in says(found(AwsKms(kms, other), grade="bad"))


def test_a_key_that_is_never_rotated_is_a_warning(found, kms):
    kms.disable_key_rotation(KeyId=kms.arn)
    (finding,) = found(AwsKms(kms, kms.arn), grade="warning")
    assert "enable-key-rotation" in finding.mend


def test_whoever_may_not_see_the_state_of_a_key_is_warned_and_no_more(found, kms):
    kms.denied = {"DescribeKey", "GetKeyRotationStatus"}
    (finding,) = found(AwsKms(kms, kms.arn), grade="warning")
    assert "kms:DescribeKey is not allowed" in finding.says
    kms.denied = {"GetKeyRotationStatus"}
    assert found(AwsKms(kms, kms.arn), grade="warning") == []


@pytest.mark.parametrize(("denied", "right"), [("GenerateDataKey", "make data keys"), ("Decrypt", "decrypt")])
def test_a_right_that_aws_kms_does_not_give_is_named(found, kms, denied, right):
    kms.denied = {denied}
    (finding,) = found(AwsKms(kms, kms.arn), grade="bad")
    assert f"kms:{denied} is not allowed" in finding.says
    assert right in finding.mend


def test_a_service_that_does_not_answer_is_named(found, kms):
    provider = AwsKms(kms, kms.arn)
    kms.away = True
    findings = found(provider, grade="bad")
    assert len(findings) == 2
    assert "no answer (EndpointConnectionError)" in says(findings)


def test_an_rsa_key_of_aws_kms_is_asked_where_it_is_wrapped_for_and_where_it_opens(found, kms):
    key = kms.create_key(KeyUsage="ENCRYPT_DECRYPT", KeySpec="RSA_2048")["KeyMetadata"]["Arn"]
    seals = PublicKeyRecipients(ServiceRecipients([AwsKmsRsaKey(kms, key)]))
    opens = PublicKeyRecipients(open_with=[AwsKmsRsaKey(kms, key)])
    assert f"{key} is enabled" in says(found(seals, role="producer"))
    kms.disable_key(KeyId=key.rpartition("/")[2])
    for provider, role in ((seals, "producer"), (opens, "consumer")):
        assert f"{key} is disabled" in says(found(provider, role=role, grade="bad"))


def test_an_rsa_key_of_azure_is_asked_by_its_version(found, vault):
    double, client = vault
    double.begin_again()
    key = client.create_rsa_key("pair").id
    double.keys["pair"][-1].attributes["enabled"] = False
    provider = PublicKeyRecipients(open_with=[AzureRsaKey(client, key)])
    assert f"{key} is disabled" in says(found(provider, role="consumer", grade="bad"))


def test_a_certificate_that_is_wrapped_for_is_looked_at_before_it_ends(found):
    public = x25519.X25519PrivateKey.generate().public_key()
    ends = time.time() + 5 * 86400
    provider = PublicKeyRecipients([RecipientKey(public, name="archive", not_after=ends)])
    (finding,) = found(provider, grade="warning", role="producer")
    assert "the certificate of archive ends on" in finding.says


@pytest.mark.parametrize(
    ("spec", "usage", "kind"),
    [("ECC_NIST_P256", "SIGN_VERIFY", AwsKmsEs256Key), ("HMAC_256", "GENERATE_VERIFY_MAC", AwsKmsHmacKey)],
)
def test_a_root_of_aws_kms_that_somebody_took_away_is_named(found, kms, spec, usage, kind):
    """What was delegated goes on for a while: nobody would notice until it ends."""
    arn = kms.create_key(KeyUsage=usage, KeySpec=spec)["KeyMetadata"]["Arn"]
    text = FILE.replace(FILE[FILE.index("[signers") : FILE.index("[[policy")], "")

    def ring(arn):
        return {"billing": KeyRing([DelegatedKey(kind("root", kms, arn), senders=["billing-api"])])}

    assert f"{arn} is enabled" in says(found(local_keys(), text, signers=ring(arn)))
    kms.schedule_key_deletion(KeyId=arn.rpartition("/")[2], PendingWindowInDays=7)
    told = says(
        [
            each
            for each in found(local_keys(), text, signers=ring(arn), grade="bad")
            if each.what == "signers.billing"
        ]
    )
    assert f"{arn} is waiting for deletion" in told
    assert spec in says(found(local_keys(), text, signers=ring(kms.arn), grade="bad"))


# -- Azure Key Vault ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vault():
    with KeyVaultDouble() as double, double.client() as client:
        yield double, client


def test_a_key_of_azure_that_works(found, vault):
    double, client = vault
    double.begin_again()
    findings = found(AzureKeyVault(client, client.create_rsa_key("works").name))
    assert [each for each in findings if each.grade != "good"] == []
    assert "/keys/works is enabled" in says(findings)


@pytest.mark.parametrize(
    ("attributes", "grade", "words"),
    [
        ({"enabled": False}, "bad", "is disabled"),
        ({"exp": time.time() - 86400}, "bad", "ended on"),
        ({"exp": time.time() + 5 * 86400}, "warning", "in 4 days"),
        ({"nbf": time.time() + 86400}, "bad", "not valid yet"),
        ({"recoveryLevel": "Recoverable+Purgeable"}, "warning", "enable-purge-protection"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_key_of_azure_that_ends_or_could_be_lost_is_named(found, vault, attributes, grade, words):
    double, client = vault
    double.begin_again()
    name = client.create_rsa_key("k" + "-".join(attributes).lower() + str(abs(hash(words)) % 1000)).name
    double.keys[name][-1].attributes.update(attributes)
    findings = [
        each
        for each in found(AzureKeyVault(client, name))
        if each.grade == grade and each.what == "keys.main"
    ]
    assert words in says(findings)


def test_a_root_of_azure_is_asked_by_its_version(found, vault):
    double, client = vault
    double.begin_again()
    text = FILE.replace(FILE[FILE.index("[signers") : FILE.index("[[policy")], "")
    key = client.create_ec_key("root", curve="P-256")
    double.keys["root"][-1].attributes["exp"] = time.time() + 3 * 86400
    ring = KeyRing([DelegatedKey(AzureEs256Key("root", client, key.id), senders=["billing-api"])])
    told = says(found(local_keys(), text, signers={"billing": ring}))
    assert f"signers.billing: {key.id} is enabled" in told
    assert "in 2 days" in told


def test_a_vault_that_is_away_or_says_no_is_named(found, vault):
    double, client = vault
    double.begin_again()
    name = client.create_rsa_key("away").name
    double.denied.add("unwrapkey")
    (finding,) = found(AzureKeyVault(client, name), grade="bad")
    assert "right to decrypt" in finding.mend
    double.begin_again()
    double.away = True
    assert "firewall" in says(found(AzureKeyVault(client, name), grade="bad"))
    double.begin_again()
    assert "keys/get" in says(found(AzureKeyVault(client, "never-made"), grade="bad"))


# -- Vault -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transit():
    with TransitDouble() as double:
        client = double.client()
        yield double, client
        client.adapter.close()


def test_a_key_of_transit_that_works(found, transit):
    double, client = transit
    double.begin_again()
    findings = found(VaultTransit(client, double.new_key()))
    assert [each for each in findings if each.grade != "good"] == []
    assert "version 1 wraps" in says(findings)
    assert "clock" in says(findings)


def test_a_key_of_transit_that_could_be_deleted_and_is_never_rotated_is_a_warning(found, transit):
    double, client = transit
    double.begin_again()
    name = double.new_key()
    double.keys[name].config = {"deletion_allowed": True, "auto_rotate_period": 0}
    findings = found(VaultTransit(client, name), grade="warning")
    assert [each.mend.rpartition(" ")[2] for each in findings] == [
        "deletion_allowed=false",
        "auto_rotate_period=8760h",
    ]


def test_a_key_of_transit_that_is_not_there_or_of_a_wrong_type_is_named(found, transit):
    double, client = transit
    double.begin_again()
    assert "is not there" in says(found(VaultTransit(client, "nowhere"), grade="bad"))
    double.denied = {"decrypt"}
    (finding,) = found(VaultTransit(client, double.new_key()), grade="bad")
    assert "right to decrypt" in finding.mend
    double.denied = {"keys"}
    (finding,) = found(VaultTransit(client, double.new_key()), grade="warning")
    assert "not to be seen" in finding.says


def test_a_token_that_ends_and_a_clock_that_is_wrong_are_named(found, transit):
    double, client = transit
    double.begin_again()
    name = double.new_key()
    double.token = {"ttl": 600, "renewable": True}
    (finding,) = found(VaultTransit(client, name), grade="warning")
    assert "ends in 10 min, and can be renewed" in finding.says
    double.begin_again()
    double.clock_off = 400
    (finding,) = found(VaultTransit(client, name), grade="bad")
    assert "behind its own" in finding.says
    double.begin_again()
    double.expired = True
    assert "the token is not taken" in says(found(VaultTransit(client, name), grade="bad"))


# -- clocks, ends, disks, ledgers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("date", "grades", "words"),
    [
        ("Tue, 01 Dec 2026 00:00:30 GMT", ["good"], "within 30 s"),
        ("Tue, 01 Dec 2026 00:05:00 GMT", ["bad"], "300 s behind"),
        ("Mon, 30 Nov 2026 23:00:00 GMT", ["bad"], "3,600 s ahead of"),
        (1796083200, ["good"], "within 1 s"),
        ("yesterday", [], ""),
        (None, [], ""),
    ],
)
def test_clocks_are_compared_where_the_server_tells_the_time(date, grades, words):
    findings = list(clock_of(date, datetime(2026, 12, 1, tzinfo=UTC).timestamp()))
    assert [each.grade for each in findings] == grades
    assert words in says(findings)


def test_what_ends_soon_is_said_before_it_ends():
    now = datetime(2026, 12, 1, tzinfo=UTC)
    for days, grade in ((-1, "bad"), (29, "warning"), (31, None)):
        findings = list(ends_of(now + timedelta(days=days), "it", now.timestamp(), "renew it"))
        assert [each.grade for each in findings] == ([grade] if grade else [])
    assert list(ends_of(None, "it", now.timestamp(), "")) == []


@pytest.mark.parametrize(("free", "grade"), [(99 * 2**20, "bad"), (101 * 2**20, "warning"), (2**31, "good")])
def test_a_disk_that_fills_is_said(free, grade, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert [each.grade for each in room_at(str(tmp_path))] == [grade]


def test_the_audit_is_looked_at_and_nothing_is_written_to_it(found, tmp_path):
    file = tmp_path / "audit.jsonl"
    findings = found(WatchedKeys(), f'{FILE}\n[audit.file]\npath = "{file}"\n')
    assert "can be written" in says(findings)
    assert "GiB are free" in says(findings)
    assert file.read_bytes() == b""
    missing = f'{FILE}\n[audit.file]\npath = "{tmp_path}/nowhere/audit.jsonl"\n'
    (finding,) = found(WatchedKeys(), missing, grade="bad")
    assert "cannot be written" in finding.says


def test_a_syslog_that_nobody_listens_at_is_named(found):
    section = '\n[audit.syslog]\naddress = "127.0.0.1:9"\ntcp = true\n'
    (finding,) = found(WatchedKeys(), FILE + section, grade="bad")
    assert "takes no lines" in finding.says


def test_a_ledger_in_a_file_is_opened_and_nothing_is_settled(found, tmp_path):
    ledger = SqliteLedger(tmp_path / "ledger.db")
    assert isinstance(ledger, Examined)
    findings = found(WatchedKeys(), ledger=lambda: ledger)
    assert "can be written, and holds 0 messages" in says(findings)
    ledger.close()
    (tmp_path / "other.db").write_bytes(b"no database at all, but some text" * 100)
    (finding,) = found(WatchedKeys(), ledger=lambda: SqliteLedger(tmp_path / "other.db"), grade="bad")
    assert finding.what == "ledger"


def test_a_ledger_in_redis_is_asked_and_so_is_what_it_does_when_it_is_full(found):
    class Redis(StandIn):
        def __init__(self):
            super().__init__()
            self.memory = {"maxmemory": 0, "maxmemory_policy": "noeviction"}

        def ping(self):
            self.get(b"")

        def info(self, section):
            return self.memory

    redis = Redis()
    assert found(WatchedKeys(), ledger=lambda: RedisLedger(redis), grade="bad") == []
    redis.memory = {"maxmemory": 2**20, "maxmemory_policy": "allkeys-lru"}
    (finding,) = found(WatchedKeys(), ledger=lambda: RedisLedger(redis), grade="warning")
    assert "allkeys-lru" in finding.says
    redis.away = True
    (finding,) = found(WatchedKeys(), ledger=lambda: RedisLedger(redis), grade="bad")
    assert "no answer" in finding.says
