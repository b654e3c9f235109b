"""Branch keys in a policy file."""

from __future__ import annotations

import pytest

from postseal.core import Sealer
from postseal.core.config import PolicyFile
from postseal.core.errors import PolicyFileError
from tests.core.kit import CountedKeys

TEXT = """
sender = "billing-api"

[keys.root]
provider = "given"

[keys.main]
provider = "branch"
keys = ["root"]
branch = "orders"
path = "branches.db"

[[policy]]
name = "orders"
destinations = ["kafka:orders", "sqs:orders"]
keys = ["main"]
data_key = { max_messages = 1 }
"""


@pytest.fixture
def write(tmp_path):
    def write(right="", written=""):
        assert right in TEXT
        path = tmp_path / "postseal.toml"
        path.write_text(TEXT.replace(right, written) if right else TEXT)
        return path

    return write


def test_the_service_is_asked_once_for_many_data_keys_and_the_file_lies_beside(write, tmp_path):
    """D4: one call for the branch key; each message has a data key of its own."""
    root = CountedKeys()
    with Sealer.from_file(write(), keys={"root": root}) as sealer:
        sealed = [sealer.seal(b"order", destination="kafka:orders") for _ in range(20)]
        assert {sealer.open(each, destination="kafka:orders").body for each in sealed} == {b"order"}
        assert (root.generated, root.unwrapped) == (1, 1)
        sealer.reload()  # what is at hand stays
        sealed.append(sealer.seal(b"order", destination="sqs:orders"))
        assert sealer.open(sealed[-1], destination="sqs:orders").body == b"order"
        assert (root.generated, root.unwrapped) == (1, 1)
    assert (tmp_path / "branches.db").exists()
    other = CountedKeys(root.inner)
    with Sealer.from_file(write(), keys={"root": other}) as another:
        assert another.open(sealed[0], destination="kafka:orders").body == b"order"
        assert (other.generated, other.unwrapped) == (0, 1)


@pytest.mark.parametrize(
    ("right", "written", "words"),
    [
        ('keys = ["root"]\nbranch', "branch", ["no keys", "which key service"]),
        ('branch = "orders"\n', "", ["no branch"]),
        ('keys = ["root"]\nbranch', 'keys = ["rot"]\nbranch', ["'rot'", "did you mean 'root'"]),
        ('keys = ["root"]\nbranch', 'keys = ["main"]\nbranch', ["leads back to 'main'"]),
        ("path = ", "file = ", ["no option 'file'"]),
        (
            'provider = "given"',
            'provider = "public-key"\ncertificate = "root.pem"',
            ["anybody can wrap for a public key"],
        ),
    ],
)
def test_a_mistake_is_said_before_anything_is_made(write, tmp_path, right, written, words):
    with pytest.raises(PolicyFileError) as error:
        PolicyFile.read(write(right, written))
    text = "\n".join(mistake.text for mistake in error.value.mistakes)
    assert all(word in text for word in words), text
    assert not (tmp_path / "branches.db").exists()


@pytest.mark.parametrize("written", ["", 'path = "branches.db"\ntable = "branches"\n'], ids=["none", "both"])
def test_there_is_one_store(write, written):
    with pytest.raises(PolicyFileError, match="kept in one store"):
        Sealer.from_file(write('path = "branches.db"\n', written), keys={"root": CountedKeys()})
