"""The section [ledger] of a policy file, and what a reload takes over of it."""

from __future__ import annotations

import pytest

from postseal.core import ConfigError, MemoryLedger, Sealer, SqliteLedger, Verdict
from postseal.core.config import PolicyFile
from postseal.core.errors import PolicyFileError
from postseal.core.replay import RedisLedger
from tests.core.kit import local_keys

HERE = "kafka:orders"
HEAD = """
sender = "billing-api"

[[policy]]
name = "orders"
destinations = ["kafka:orders"]
keys = ["main"]
on_duplicate = "refuse"
max_message_age = "7d"
"""


@pytest.fixture
def write(tmp_path):
    def write(ledger, head=HEAD):
        path = tmp_path / "postseal.toml"
        path.write_text(head + ledger)
        return path

    return write


@pytest.fixture
def sealer_of(write):
    made = []

    def sealer_of(section, head=HEAD, **options):
        made.append(Sealer.from_file(write(section, head), keys={"main": local_keys()}, **options))
        return made[-1]

    yield sealer_of
    for each in made:
        each.close()
        if isinstance(each.ledger, SqliteLedger):
            each.ledger.close()


def test_a_ledger_in_memory(sealer_of):
    """A9: and it is asked."""
    sealer = sealer_of('[ledger]\nstore = "memory"\nmax_ids = 1000\nmax_age = "30d"\n')
    assert isinstance(sealer.ledger, MemoryLedger)
    assert (sealer.ledger.max_ids, sealer.ledger.max_age) == (1000, 30 * 86400)
    sealed = sealer.seal(b"order", destination=HERE)
    sealer.settled(sealer.open(sealed, destination=HERE))
    with pytest.raises(Exception, match="duplicate"):
        sealer.open(sealed, destination=HERE)


def test_a_ledger_in_a_file_lies_beside_the_policy_file_and_knows_after_a_restart(sealer_of, tmp_path):
    text = '[ledger]\nstore = "sqlite"\npath = "ledger.db"\nmax_ids = 500\non_failure = "deliver"\ntimeout = "1s"\n'
    one = sealer_of(text)
    sealed = one.seal(b"order", destination=HERE)
    one.settled(one.open(sealed, destination=HERE))
    assert (tmp_path / "ledger.db").exists()
    other = SqliteLedger(tmp_path / "ledger.db")
    receipt = one.open(one.seal(b"other", destination=HERE), destination=HERE).receipt
    assert other.meet(receipt) is Verdict.OK
    one.settled(receipt)
    assert other.meet(receipt) is Verdict.DUPLICATE
    other.close()


def test_a_ledger_in_redis_is_named_by_a_reference(sealer_of, monkeypatch):
    """Making it asks nobody."""
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@redis.internal:6390/2")
    sealer = sealer_of(
        '[ledger]\nstore = "redis"\nurl = { env = "REDIS_URL" }\nprefix = "eu:"\ntimeout = "2s"\n'
    )
    assert isinstance(sealer.ledger, RedisLedger)
    assert sealer.ledger._prefix == b"eu:"
    wanted = sealer.ledger._client.connection_pool.connection_kwargs
    assert (wanted["host"], wanted["port"], wanted["db"], wanted["socket_timeout"]) == (
        "redis.internal",
        6390,
        2,
        2,
    )
    assert isinstance(
        sealer_of('[ledger]\nstore = "redis"\nurl = "redis://localhost/0"\n').ledger, RedisLedger
    )


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("ledger = true\n", ["ledger must be a table"]),
        ("[ledger]\nmax_ids = 5\n", ["[ledger] has no store", "sqlite"]),
        ('[ledger]\nstore = "sqlit"\npath = "x"\n', ["store is 'sqlit'", "did you mean 'sqlite'"]),
        ('[ledger]\nstore = "sqlite"\n', ["no path"]),
        ('[ledger]\nstore = "memory"\npath = "x"\n', ["no option 'path'", "store = 'sqlite'"]),
        ('[ledger]\nstore = "redis"\n', ["no url", "env"]),
        ('[ledger]\nstore = "redis"\nurl = "http://redis"\n', ["url", "redis://host"]),
        (
            '[ledger]\nstore = "redis"\nurl = "redis://:hunter2@redis/0"\n',
            ["never stands in the policy file"],
        ),
        ('[ledger]\nstore = "memory"\nmax_age = 14\n', ["has no unit"]),
        ('[ledger]\nstore = "sqlite"\npath = "x"\non_failure = "keeps"\n', ["did you mean 'keep'"]),
        ('[ledger]\nstore = "memory"\nmax_ids = 0\n', ["max_ids must be 1 to"]),
    ],
)
def test_a_mistake_is_said_with_its_line(write, section, words):
    path = write("", head=section + HEAD) if section.startswith("ledger =") else write(section)
    with pytest.raises(PolicyFileError) as error:
        PolicyFile.read(path, keys=["main"])
    [mistake] = error.value.mistakes
    assert all(word in mistake.text for word in words), mistake.text
    assert mistake.line == 1 or not section.startswith("ledger =")
    assert "hunter2" not in str(error.value)


def test_a_ledger_that_forgets_before_a_policy_does_is_an_error(sealer_of):
    with pytest.raises(ConfigError, match="max_message_age"):
        sealer_of('[ledger]\nstore = "memory"\nmax_age = "1d"\n')


# -- reload ------------------------------------------------------------------------------------------------------------

SQLITE = '[ledger]\nstore = "sqlite"\npath = "{}"\n'


def test_a_reload_takes_over_another_store_and_keeps_one_that_is_the_same(sealer_of, write):
    sealer = sealer_of(SQLITE.format("one.db"))
    first = sealer.ledger
    assert sealer.reload().waits == ()
    assert sealer.ledger is first
    write(SQLITE.format("two.db"))
    assert sealer.reload().waits == ()
    assert sealer.ledger is not first
    first.close()
    sealed = sealer.seal(b"order", destination=HERE)
    sealer.settled(sealer.open(sealed, destination=HERE))
    with pytest.raises(Exception, match="duplicate"):
        sealer.open(sealed, destination=HERE)


@pytest.mark.parametrize(
    "again", ["", '[ledger]\nstore = "memory"\nmax_ids = 5\n'], ids=["none", "other bounds"]
)
def test_what_would_forget_waits_and_is_told(sealer_of, write, again, caplog):
    """A ledger in memory that is replaced would know nothing: an old copy would pass."""
    told = []
    sealer = sealer_of('[ledger]\nstore = "memory"\n', on_reload=told.append)
    before = sealer.ledger
    write(again)
    assert sealer.reload().waits == ("ledger",)
    assert sealer.ledger is before
    assert [reload.waits for reload in told] == [("ledger",)]
    assert "[ledger] says now waits until the program starts again" in caplog.text


def test_a_first_ledger_waits_as_clients_that_are_protected_tell_none(sealer_of, write):
    head = HEAD.replace('on_duplicate = "refuse"\n', "")
    sealer = sealer_of("", head)
    write('[ledger]\nstore = "memory"\n', head)
    assert sealer.reload().waits == ("ledger",)
    assert sealer.ledger is None


def test_what_the_program_gives_goes_before_the_file_after_a_reload_too(sealer_of, write):
    mine = MemoryLedger()
    sealer = sealer_of(
        '[ledger]\nstore = "memory"\n', ledger=mine, audit_log=None, deduplication_secret=bytes(32)
    )
    before = sealer.deduplication_id(b"order", destination=HERE)
    write(SQLITE.format("ledger.db"))
    sealer.reload()
    assert sealer.ledger is mine
    assert sealer.deduplication_id(b"order", destination=HERE) == before


def test_another_store_of_references_waits_and_one_that_is_the_same_does_not(sealer_of, write, tmp_path):
    """D5: what was published in the first would not be found in the second."""
    head, section = (
        HEAD.replace('on_duplicate = "refuse"\n', ""),
        '[references]\nstore = "sqlite"\npath = "{}.db"\n',
    )
    sealer = sealer_of(section.format("one"), head)
    assert sealer.reload().waits == ()
    write(section.format("two"), head)
    assert sealer.reload().waits == ("references",)
    sealer = sealer_of("", head)
    write("", head.replace("keys = ", "key_by_reference = true\nkeys = "))
    with pytest.raises(ConfigError, match="key_by_reference"):
        sealer.reload()
