"""B13: branch keys between the key service and data keys; B15: erasure by destroying one."""

from __future__ import annotations

import hashlib
import hmac
from threading import Lock

import boto3
import cbor2
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from moto import mock_aws
from moto.dynamodb.models import DynamoDBBackend

from postseal.core import (
    AwsKms,
    BranchKeys,
    ConfigError,
    KeyRefused,
    KeyUnavailable,
    OpeningLimits,
    Policy,
    Refused,
    Sealer,
    Verdict,
)
from postseal.core.errors import KeyBroken, NotMine
from postseal.core.keys import KeyContext, Recipient
from postseal.core.providers.branch import BranchRecord, BranchStore, branch_id
from postseal.core.providers.branch_stores import DynamoBranches, MemoryBranches, SqliteBranches
from tests.core.provider_contract import ProviderContract
from tests.core.stand_ins import CONTEXT, Clock, WatchedKeys, in_threads, local_keys


def branch_keys(inner=None, store=None, branch="orders", **options) -> BranchKeys:
    return BranchKeys(inner or local_keys(), store or MemoryBranches(), branch, **options)


class TestBranchKeys(ProviderContract):
    @pytest.fixture
    def provider(self):
        return branch_keys()

    @pytest.fixture
    def stranger(self):
        return branch_keys(branch="theirs")


# -- what it saves -----------------------------------------------------------------------------------------------------


class Process:
    """A process with a sealer of its own, and a count of what it asks the key service."""

    def __init__(self, root, store=None, clock=None) -> None:
        self.asked = WatchedKeys(root)
        self.keys = (
            self.asked
            if store is None
            else BranchKeys(self.asked, store, "orders", monotonic=clock or Clock())
        )
        policies = [Policy(name=f"p{n}", destinations=[f"kafka:{n}"], keys=["main"]) for n in range(3)]
        self.sealer = Sealer(sender="shop", policies=policies, keys={"main": self.keys})


def calls(root, *, producers: int, consumers: int, data_keys: int, store=None) -> int:
    """Count the calls of so many processes: each producer makes *data_keys* for each of three destinations, every consumer opens all."""
    shops = [Process(root, store) for _ in range(producers)]
    readers = [Process(root, store) for _ in range(consumers)]
    for shop in shops:
        for n in range(3):
            for _ in range(data_keys):
                envelope = shop.sealer.seal(b"4111", destination=f"kafka:{n}")
                for reader in readers:
                    assert reader.sealer.open(envelope, destination=f"kafka:{n}").body == b"4111"
                shop.sealer.close()  # the next message takes another data key
    return sum(process.asked.calls for process in (*shops, *readers))


def test_calls_grow_with_processes_and_not_with_producers_times_consumers():
    """B13: counted. 4 producers and 4 consumers, 3 destinations, 5 data keys each: 300 without, 9 with."""
    root = local_keys()
    size = {"producers": 4, "consumers": 4, "data_keys": 5}
    assert calls(root, **size) == 4 * 3 * 5 * (1 + 4)
    # Each process unwraps the branch key once; and it was made once.
    assert calls(root, store=MemoryBranches(), **size) == 4 + 4 + 1
    assert calls(root, store=MemoryBranches(), producers=8, consumers=4, data_keys=5) == 8 + 4 + 1


def test_many_threads_ask_for_a_branch_key_once():
    asked = WatchedKeys()
    store = MemoryBranches()
    branch_keys(asked, store).create("orders")
    before = asked.calls
    fresh = branch_keys(asked, store)
    outcomes = in_threads(*[lambda: fresh.generate(CONTEXT)] * 16)
    assert {type(outcome).__name__ for outcome in outcomes} == {"NewDataKey"}
    assert asked.calls == before + 1


# -- each rotates alone ------------------------------------------------------------------------------------------------


def test_root_branch_and_data_key_rotate_alone():
    """B13."""
    store, clock = MemoryBranches(), Clock()
    first = branch_keys(local_keys("root"), store, monotonic=clock)
    old = first.generate(CONTEXT)
    assert first.rotate("orders") == 2
    new = first.generate(CONTEXT)
    assert [made.recipients[0].key_id[-4:] for made in (old, new)] == [b"\0\0\0\1", b"\0\0\0\2"]
    for made in (old, new):
        assert first.unwrap(made.recipients, CONTEXT) == made.data_key


def test_another_process_wraps_under_the_new_key_within_max_age_and_opens_at_once():
    store, clock, root = MemoryBranches(), Clock(), local_keys()
    one, other = (branch_keys(root, store, monotonic=clock, max_age=600.0) for _ in range(2))
    other.generate(CONTEXT)
    one.rotate("orders")
    made = one.generate(CONTEXT)
    assert other.unwrap(made.recipients, CONTEXT) == made.data_key
    assert other.generate(CONTEXT).recipients[0].key_id[-1] == 1
    clock.pass_(601)
    assert other.generate(CONTEXT).recipients[0].key_id[-1] == 2


# -- the bytes ---------------------------------------------------------------------------------------------------------


def test_the_bytes_are_those_of_the_specification():
    """SPEC.md 6.3, by other means."""
    root, store = WatchedKeys(), MemoryBranches()
    made = branch_keys(root, store).generate(CONTEXT)
    [key] = root.made
    bound = cbor2.dumps(["postseal v1 context", CONTEXT.policy, CONTEXT.destination])
    wrapping = hmac.new(key, b"postseal v1 branch" + bound + b"\x01", hashlib.sha256).digest()
    [recipient] = made.recipients
    name = hashlib.sha256(cbor2.dumps(["postseal v1 branch", "orders"])).digest()[:8]
    assert (recipient.algorithm, recipient.key_id) == (-65542, name + b"\0\0\0\1")
    assert len(recipient.wrapped_key) == 60
    wrapped = recipient.wrapped_key
    assert AESGCM(wrapping).decrypt(wrapped[:12], wrapped[12:], bound) == made.data_key
    assert branch_id("orders") == name


def test_a_record_cannot_stand_in_for_another():
    """Whoever writes to the store can take a key away; he cannot have one branch's key used for another, or an old version's for a new."""
    root = local_keys()

    class Swapped(MemoryBranches):
        swap = None

        def get(self, branch, version):
            return BranchRecord(branch, version, super().get(*self.swap).recipients)

    store = Swapped()
    keys = branch_keys(root, store, lambda context: context.policy, branches=["orders", "refunds"])
    made = keys.generate(CONTEXT)
    keys.rotate("orders")
    keys.generate(KeyContext("refunds", "kafka:refunds"))
    fresh = branch_keys(root, store, lambda context: context.policy, branches=["orders", "refunds"])
    for swap in (("refunds", 1), ("orders", 2)):
        store.swap = swap
        with pytest.raises(KeyBroken):
            fresh.unwrap(made.recipients, CONTEXT)
    store.swap = ("orders", 1)
    assert fresh.unwrap(made.recipients, CONTEXT) == made.data_key


def test_a_forged_version_costs_the_store_one_call_and_the_key_service_none():
    root = WatchedKeys()
    clock = Clock()

    class Counted(MemoryBranches):
        asked = 0

        def get(self, branch, version):
            self.asked += 1
            return super().get(branch, version)

    store = Counted()
    keys = branch_keys(root, store, monotonic=clock)
    made = keys.generate(CONTEXT)
    before = root.calls
    forged = made.recipients[0]._replace(key_id=branch_id("orders") + b"\0\0\0\x09")
    for _ in range(50):
        with pytest.raises(KeyRefused, match="no version 9"):
            keys.unwrap([forged], CONTEXT)
    assert (root.calls, store.asked) == (before, 1)
    for other in (b"\0" * 12, branch_id("orders"), branch_id("elsewhere") + b"\0\0\0\1"):
        with pytest.raises(NotMine):
            keys.unwrap([Recipient(-65542, other, bytes(60))], CONTEXT)


# -- outages and refusals ----------------------------------------------------------------------------------------------


def test_while_the_key_service_is_away_kept_branches_go_on_up_to_max_stale_and_never_after_a_no():
    root, clock = WatchedKeys(), Clock()
    keys = branch_keys(root, monotonic=clock, max_age=600.0, max_stale=1200.0)
    made = keys.generate(CONTEXT)
    root.failing = KeyUnavailable("away")
    clock.pass_(601)
    assert keys.unwrap(made.recipients, CONTEXT) == made.data_key
    assert keys.generate(CONTEXT)
    root.failing = KeyRefused("no")
    for use in (lambda: keys.generate(CONTEXT), lambda: keys.unwrap(made.recipients, CONTEXT)):
        with pytest.raises(KeyRefused):
            use()
    root.failing = KeyUnavailable("away")
    with pytest.raises(KeyUnavailable):
        keys.generate(CONTEXT)
    root.failing = None
    assert keys.unwrap(made.recipients, CONTEXT) == made.data_key
    root.failing = KeyUnavailable("away")
    clock.pass_(601 + 1200)
    with pytest.raises(KeyUnavailable):
        keys.unwrap(made.recipients, CONTEXT)


# -- erasure -----------------------------------------------------------------------------------------------------------


def tenant_of(context: KeyContext) -> str:
    return context.destination.partition(":")[2]


def test_destroying_one_tenants_branch_makes_its_messages_unreadable_everywhere_and_no_others():
    """B15: within the time that `destroy` tells and the opening cache's, counted on one clock."""
    root, store, clock = local_keys(), MemoryBranches(), Clock()
    policy = Policy(
        name="orders",
        destinations=["kafka:*"],
        keys=["main"],
        opening=OpeningLimits(max_age=300.0, max_stale=0.0),
    )

    def process() -> tuple[BranchKeys, Sealer]:
        keys = branch_keys(
            root, store, tenant_of, branches=["acme", "zenith"], monotonic=clock, max_age=600.0, max_stale=0.0
        )
        return keys, Sealer(sender="shop", policies=[policy], keys={"main": keys}, monotonic=clock)

    (admin, shop), (_, elsewhere) = process(), process()
    mine, others = (shop.seal(b"4111", destination=f"kafka:{tenant}") for tenant in ("acme", "zenith"))
    assert elsewhere.open(mine, destination="kafka:acme").body == b"4111"
    gone_after = admin.destroy("acme") + policy.opening.max_age + policy.opening.max_stale
    assert gone_after == 900.0
    clock.pass_(gone_after + 1)
    for sealer in (shop, elsewhere, process()[1]):
        with pytest.raises(Refused) as refused:
            sealer.open(mine, destination="kafka:acme")
        assert refused.value.verdict is Verdict.UNKNOWN_KEY
        assert sealer.open(others, destination="kafka:zenith").body == b"4111"
    with pytest.raises(KeyRefused, match="was destroyed"):
        process()[1].seal(b"4111", destination="kafka:acme")


def test_a_branch_that_never_was_is_not_told_as_destroyed():
    """B15: a mistyped tenant; what was to be erased is all there. To destroy one twice is no mistake."""
    keys = branch_keys()
    keys.generate(CONTEXT)
    with pytest.raises(ConfigError, match="no branch 'ordres'"):
        keys.destroy("ordres")
    assert keys.destroy("orders") == keys.destroy("orders")


def test_a_destroyed_branch_is_made_anew_only_by_hand_and_under_a_new_version():
    keys = branch_keys()
    old = keys.generate(CONTEXT)
    keys.destroy("orders")
    with pytest.raises(KeyRefused):
        keys.rotate("orders")
    assert keys.create("orders") == 2
    assert keys.generate(CONTEXT).recipients[0].key_id[-1] == 2
    with pytest.raises(KeyRefused):
        keys.unwrap(old.recipients, CONTEXT)


# -- stores ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def dynamo(monkeypatch):
    lock, put_item = Lock(), DynamoDBBackend.put_item

    def put_item_at_once(*args, **options):
        with lock:
            return put_item(*args, **options)

    # Compares and writes in one step, as DynamoDB does; moto does it in two.
    monkeypatch.setattr(DynamoDBBackend, "put_item", put_item_at_once)
    with mock_aws():
        client = boto3.client(
            "dynamodb", region_name="eu-west-1", aws_access_key_id="testing", aws_secret_access_key="testing"
        )
        client.create_table(
            TableName="branches",
            KeySchema=[
                {"AttributeName": "branch", "KeyType": "HASH"},
                {"AttributeName": "version", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": "branch", "AttributeType": "S"},
                {"AttributeName": "version", "AttributeType": "N"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        yield client


@pytest.fixture(params=["memory", "sqlite", "dynamodb"])
def store(request, tmp_path):
    if request.param == "memory":
        return MemoryBranches()
    if request.param == "sqlite":
        return SqliteBranches(tmp_path / "branches.db")
    return DynamoBranches(request.getfixturevalue("dynamo"), "branches")


def record(version: int, wrapped: bytes = b"wrapped", branch: str = "orders") -> BranchRecord:
    return BranchRecord(
        branch, version, (Recipient(-65537, b"\x00\xff", wrapped), Recipient(-41, b"k", b"w"))
    )


def test_a_store_keeps_every_version_and_gives_the_newest(store):
    assert isinstance(store, BranchStore)
    assert store.newest("orders") is None
    assert store.get("orders", 1) is None
    for version in range(1, 12):
        assert store.add(record(version))
    assert store.add(record(1, branch="refunds"))
    assert store.newest("orders") == record(11)
    assert store.get("orders", 2) == record(2)


def test_a_store_never_writes_a_version_twice(store):
    assert store.add(record(1))
    assert not store.add(record(1, b"another"))
    assert store.newest("orders") == record(1)


def test_a_store_keeps_of_a_destroyed_branch_its_numbers_alone(store):
    for version in (1, 2):
        store.add(record(version))
    store.add(record(1, branch="refunds"))
    assert store.destroy("orders") == 2
    assert store.newest("orders") == BranchRecord("orders", 2, ())
    assert store.get("orders", 1) == BranchRecord("orders", 1, ())
    assert not store.add(record(2))
    assert store.newest("refunds") == record(1, branch="refunds")


def test_two_processes_that_begin_at_once_agree_upon_one_key(store):
    root = local_keys()
    both = [branch_keys(root, store) for _ in range(2)]
    made = in_threads(*(lambda keys=keys: keys.generate(CONTEXT) for keys in both))
    for one, other in zip(made, reversed(both), strict=True):
        assert other.unwrap(one.recipients, CONTEXT) == one.data_key


def test_a_sqlite_file_outlives_its_process_and_holds_no_key(tmp_path):
    root, path = WatchedKeys(), tmp_path / "branches.db"
    made = branch_keys(root, SqliteBranches(path)).generate(CONTEXT)
    assert branch_keys(root, SqliteBranches(path)).unwrap(made.recipients, CONTEXT) == made.data_key
    assert not any(key in path.read_bytes() or key.hex().encode() in path.read_bytes() for key in root.made)
    assert path.stat().st_mode & 0o077 == 0
    path.write_bytes(b"no database, but something else that is long enough to be seen" * 100)
    with pytest.raises(KeyUnavailable):
        SqliteBranches(path)


def test_a_table_that_is_not_there_is_a_no():
    with mock_aws():
        client = boto3.client(
            "dynamodb", region_name="eu-west-1", aws_access_key_id="testing", aws_secret_access_key="testing"
        )
        with pytest.raises(KeyRefused, match="ResourceNotFoundException"):
            DynamoBranches(client, "nowhere").newest("orders")


def test_under_aws_kms_its_context_is_the_branchs(dynamo):
    """Key policies can say who may make and use which branch."""
    kms = boto3.client(
        "kms", region_name="eu-west-1", aws_access_key_id="testing", aws_secret_access_key="testing"
    )
    seen = []
    kms.meta.events.register(
        "before-parameter-build.kms.*", lambda params, **_: seen.append(params.get("EncryptionContext"))
    )
    keys = branch_keys(
        AwsKms(kms, kms.create_key()["KeyMetadata"]["Arn"]), DynamoBranches(dynamo, "branches")
    )
    made = keys.generate(CONTEXT)
    keys.forget()
    assert keys.unwrap(made.recipients, CONTEXT) == made.data_key
    told = {"postseal:policy": "postseal branch", "postseal:destination": "branch:orders/1"}
    assert [context for context in seen if context] == [told, told, told]


def test_mistakes_are_told():
    for make, why in (
        (lambda: branch_keys(branch=lambda context: "x"), "the list of branches"),
        (lambda: branch_keys(branch=lambda context: "x", branches="x"), "the list of branches"),
        (lambda: branch_keys(branch=""), "a branch must have"),
        (
            lambda: branch_keys(branch=lambda context: "y", branches=["x"]).generate(CONTEXT),
            "none of `branches`",
        ),
        (lambda: DynamoBranches(object(), "t"), "a boto3 client"),
    ):
        with pytest.raises(ConfigError, match=why):
            make()
