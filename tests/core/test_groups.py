"""B5: a group key handed to members who join, signed by who introduces; a member removed cannot read what follows."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from postseal.core import (
    ConfigError,
    Ed25519Key,
    KeyRing,
    KeyUnavailable,
    OpeningKey,
    Policy,
    RecipientKey,
    Refused,
    Sealer,
    Verdict,
)
from postseal.core.directory import Fetched, issue
from postseal.core.errors import NotMine
from postseal.core.groups import Group, GroupKeys
from postseal.core.wire import decode
from tests.core.provider_contract import ProviderContract
from tests.core.stand_ins import CONTEXT, Clock

ADMIN = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
SIGNER = Ed25519Key("admin-1", private_key=ADMIN, senders=["ann"])
ISSUERS = KeyRing([Ed25519Key("admin-1", public_key=ADMIN.public_key(), senders=["ann"])])
KEYS = {name: OpeningKey.generate("x25519") for name in ("ann", "bob", "eve", "joe")}
HERE = "kafka:orders"


def members(*names: str) -> dict[str, RecipientKey]:
    return {name: KEYS[name].public for name in names}


class Board:
    """Where the signed document hangs, for all to read."""

    def __init__(self, group: Group) -> None:
        self.asked = 0
        self.away = False
        self.hang(group)

    def hang(self, group: Group, **options) -> None:
        self.group = group
        given = {"issuer": "ann", "key": SIGNER} | options
        self.content = issue(group.document(), destination=f"group:{group.name}", **given)

    def __call__(self, etag):
        self.asked += 1
        if self.away:
            raise OSError("away")
        return Fetched(self.content, None)


def keys_on(board: Board, *names: str, clock: Clock | None = None, **options) -> GroupKeys:
    clock = clock or Clock()
    own = [KEYS[name] for name in names]
    return GroupKeys(
        board,
        name="warehouse",
        issuers=ISSUERS,
        open_with=own,
        monotonic=clock,
        sleep=clock.pass_,
        run=lambda job: job(),
        **options,
    )


class TestGroupKeys(ProviderContract):
    @pytest.fixture(params=["x25519", "x-wing"])
    def kind(self, request):
        return request.param

    @pytest.fixture
    def provider(self, kind):
        return keys_on(Board(Group.create("warehouse", members("ann", "bob"), kind=kind)), "bob")

    @pytest.fixture
    def stranger(self, kind):
        return keys_on(Board(Group.create("warehouse", members("ann", "eve"), kind=kind)), "eve")


class Station:
    """A member or a producer: a sealer on the group's keys."""

    def __init__(self, board: Board, *names: str) -> None:
        self.clock = Clock()
        self.keys = keys_on(board, *names, clock=self.clock)
        policy = Policy(name="orders", destinations=[HERE], keys=["group"])
        self.sealer = Sealer(
            sender="shop", policies=[policy], keys={"group": self.keys}, monotonic=self.clock
        )

    def reads(self, envelope: bytes) -> bool:
        try:
            return self.sealer.open(envelope, destination=HERE).body == b"4111"
        except Refused as refused:
            if refused.verdict is not Verdict.UNKNOWN_KEY:
                raise
            return False

    def seal(self) -> bytes:
        # The data key and the document were used up: what is sealed now is sealed for the group as it is now.
        self.clock.pass_(7200)
        return self.sealer.seal(b"4111", destination=HERE)


def test_three_members_read_one_is_removed_and_reads_nothing_that_follows():
    """B5, shown with three members."""
    board = Board(Group.create("warehouse", members("ann", "bob", "eve")))
    shop, ann, bob, eve = (Station(board, *names) for names in ((), ("ann",), ("bob",), ("eve",)))
    first = shop.seal()
    assert [reader.reads(first) for reader in (ann, bob, eve)] == [True, True, True]
    board.hang(board.group.remove("eve"))
    second = shop.seal()
    assert [reader.reads(second) for reader in (ann, bob, eve)] == [True, True, False]
    # Who stays reads the old, too; who is gone finds nothing of it in the document any more.
    assert Station(board, "ann").reads(first)
    assert not Station(board, "eve").reads(first)
    # One recipient, whether there are two members or three.
    assert len(decode(first).recipients) == len(decode(second).recipients) == 1


@pytest.mark.parametrize("from_now", [True, False])
def test_who_joins_reads_what_follows_or_also_what_the_present_key_sealed(from_now):
    board = Board(Group.create("warehouse", members("ann", "bob")))
    shop = Station(board)
    before = shop.seal()
    joe = KEYS["joe"].public
    board.hang(board.group.add("joe", joe) if from_now else board.group.add("joe", joe, current=KEYS["ann"]))
    after = shop.seal()
    newcomer = Station(board, "joe")
    assert newcomer.reads(after)
    assert newcomer.reads(before) is not from_now
    assert Station(board, "bob").reads(before)
    assert Station(board, "bob").reads(after)
    assert len(board.group.epochs) == (2 if from_now else 1)


def test_who_was_removed_does_not_come_back_by_an_old_document():
    """An older version, though rightly signed, is not taken."""
    board = Board(Group.create("warehouse", members("ann", "eve")))
    old = board.content
    board.hang(board.group.remove("eve"))
    shop = Station(board)
    board.content = old
    assert not Station(board, "eve").keys.group.members.keys() - {"ann", "eve"}
    sealed = shop.seal()
    assert decode(sealed).recipients[0].key_id == board.group.public.key_id


@pytest.mark.parametrize(
    "options",
    [
        {"issuer": "bob", "key": Ed25519Key("admin-1", private_key=ADMIN, senders=["bob"])},
        {"key": Ed25519Key("admin-1", private_key=ed25519.Ed25519PrivateKey.generate(), senders=["ann"])},
    ],
    ids=["somebody else", "another key"],
)
def test_who_may_not_introduce_changes_nothing(options):
    board = Board(Group.create("warehouse", members("ann", "bob")))
    shop = Station(board)
    right = board.group.public.key_id
    board.hang(board.group.add("eve", KEYS["eve"].public), **options)
    assert decode(shop.seal()).recipients[0].key_id == right
    with pytest.raises(ConfigError):
        keys_on(board)


def test_who_introduced_is_told():
    board = Board(Group.create("warehouse", members("ann", "bob")))
    assert keys_on(board).group.issued_by == "ann"
    assert keys_on(board).group.members == members("ann", "bob")


def test_a_message_for_a_newer_key_has_the_document_fetched_once_a_second_at_most():
    board = Board(Group.create("warehouse", members("ann", "bob")))
    clock = Clock()
    bob = keys_on(board, "bob", clock=clock)
    board.hang(board.group.add("joe", KEYS["joe"].public))
    made = keys_on(board).generate(CONTEXT)
    asked = board.asked
    assert bob.unwrap(made.recipients, CONTEXT) == made.data_key
    assert board.asked == asked + 1
    forged = [made.recipients[0]._replace(key_id=bytes([n] * 8)) for n in range(20)]
    began = clock.now
    for recipient in forged:
        with pytest.raises(NotMine):
            bob.unwrap([recipient], CONTEXT)
    assert board.asked - asked - 1 <= clock.now - began + 1
    board.away = True
    with pytest.raises(KeyUnavailable):  # it may be there by then: the message is kept
        bob.unwrap(forged[:1], CONTEXT)


def test_a_producer_is_no_member_and_opens_nothing():
    board = Board(Group.create("warehouse", members("ann")))
    shop = keys_on(board)
    with pytest.raises(NotMine):
        shop.unwrap(shop.generate(CONTEXT).recipients, CONTEXT)


def test_a_grant_is_of_one_group_and_epoch():
    """Whoever issues a document cannot pass off the key of one epoch as that of another."""
    group = Group.create("warehouse", members("ann")).add("bob", KEYS["bob"].public)
    first, second = group.epochs
    for changed in (
        group._replace(epochs=(first, second._replace(grants=first.grants))),
        group._replace(name="other"),
    ):
        with pytest.raises(ConfigError, match="wrapped wrongly"):
            changed.opening_keys([KEYS["ann"]])
    swapped = second._replace(public=first.public)
    with pytest.raises(ConfigError, match="another key than its own"):
        group._replace(epochs=(first, swapped)).opening_keys([KEYS["ann"]])


def test_the_document_holds_no_private_key_in_clear_and_reads_back():
    group = Group.create("warehouse", members("ann", "bob")).remove("bob")
    text = json.dumps(group.document())
    assert Group.of(json.loads(text)) == group
    for key in group.opening_keys([KEYS["ann"]]).values():
        assert base64.b64encode(key.seed).decode() not in text
        assert key.seed.hex() not in text


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"group": "x"},
        {"group": "x", "version": 1, "members": [], "epochs": []},
        {"group": "x", "version": 1, "members": {}, "epochs": []},
    ],
)
def test_what_is_no_group_is_refused(document):
    with pytest.raises(ConfigError, match=r"no document of a group|1 to 1024 members"):
        Group.of(document)


def test_mistakes_are_told():
    group = Group.create("warehouse", members("ann", "bob"))
    for call, why in (
        (lambda: Group.create("warehouse", {}), "1 to 1024 members"),
        (lambda: Group.create("warehouse", members("ann"), kind="rsa-3072"), "x25519 or x-wing"),
        (lambda: Group.create("warehouse", {"a": KEYS["ann"].public, "b": KEYS["ann"].public}), "one key"),
        (lambda: group.add("bob", KEYS["joe"].public), "a member of 'warehouse' already"),
        (lambda: group.add("joe", KEYS["joe"].public, current=KEYS["eve"]), "of no member"),
        (lambda: group.remove("bop"), "did you mean 'bob'"),
        (lambda: group.remove("bob").remove("ann"), "1 to 1024 members"),
    ):
        with pytest.raises(ConfigError, match=why):
            call()
