"""``[references]`` in a policy file."""

from __future__ import annotations

import pytest

from postseal.core import ConfigError, MemoryReferences, Sealer
from postseal.core.config import PolicyFile
from postseal.core.errors import PolicyFileError
from postseal.core.shortening import is_short
from tests.core.stand_ins import join_threads, local_keys

FILE = """
sender = "shop"
[keys.main]
provider = "given"
[references]
{references}
[[policy]]
name = "orders"
destinations = ["kafka:orders"]
keys = ["main"]
key_by_reference = true
"""
HERE = "kafka:orders"


@pytest.fixture
def write(tmp_path):
    def write(references: str):
        path = tmp_path / "postseal.toml"
        path.write_text(FILE.format(references=references))
        return path

    return write


def test_two_processes_share_a_file_of_records(write, tmp_path):
    keys = {"main": local_keys()}
    path = write('store = "sqlite"\npath = "references.db"')
    shop, billing = (Sealer.from_file(path, keys=keys) for _ in range(2))
    shop.seal(b"order 1", destination=HERE)
    join_threads("postseal-references")
    envelope = shop.seal(b"order 1", destination=HERE)
    assert is_short(envelope)
    assert billing.open(envelope, destination=HERE).body == b"order 1"
    assert (tmp_path / "references.db").exists()
    shop.reload()
    assert is_short(shop.seal(b"order 2", destination=HERE))


@pytest.mark.parametrize(
    ("references", "shows"),
    [
        (
            'store = "dynamodb"\ntable = "data-keys"\nregion = "eu-west-1"\nkeep = "30d"',
            "DynamoReferences data-keys",
        ),
        (
            'store = "azure-table"\naccount = "https://shop.table.core.windows.net"\ntable = "datakeys"',
            "AzureTableReferences datakeys",
        ),
    ],
)
def test_stores_of_clouds_are_made_with_clients_of_their_own(write, references, shows):
    sealer = Sealer.from_file(write(references), keys={"main": local_keys()})
    assert shows in repr(sealer._references._store)


def test_a_program_hands_in_any_other(write):
    store = MemoryReferences()
    path = write('store = "sqlite"\npath = "references.db"')
    shop = Sealer.from_file(path, keys={"main": local_keys()}, references=store)
    shop.seal(b"order 1", destination=HERE)
    join_threads("postseal-references")
    assert len(store._records) == 1


@pytest.mark.parametrize(
    ("references", "says"),
    [
        ("", "[references] has no store: which kind is it? There are: sqlite, dynamodb, azure-table"),
        ('store = "sqllite"', "did you mean 'sqlite'?"),
        ('store = "kafka"', "Sealer.from_file(..., references=KafkaReferences(...))"),
        ('store = "sqlite"', 'has no path: where is it? path = "references.db"'),
        ('store = "sqlite"\npath = 7', "path must be"),
        ('store = "dynamodb"\ntable = "t"\nkeep = 7', "has no unit"),
        ('store = "azure-table"\ntable = "t"\naccount = "shop"', "'shop' is no address: https://ACCOUNT"),
        ('store = "sqlite"\npath = "x"\nkey_by_reference = true', "it belongs in a [[policy]]"),
    ],
)
def test_a_mistake_is_said_with_the_right_word(write, references, says):
    with pytest.raises(PolicyFileError) as error:
        PolicyFile.read(write(references))
    assert says in str(error.value)


def test_a_policy_by_reference_without_any_is_told(write):
    path = write("")
    path.write_text(path.read_text().replace("[references]\n", ""))
    with pytest.raises(ConfigError, match="key_by_reference needs references"):
        Sealer.from_file(path, keys={"main": local_keys()})
