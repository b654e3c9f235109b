"""The providers that need no key service, and how several work as one."""

from __future__ import annotations

import os
import warnings

import pytest

from postseal.core import (
    CombinedKeys,
    ConfigError,
    KeyRefused,
    KeyUnavailable,
    UnsafeLocalKeys,
    UnsafeLocalKeysWarning,
)
from postseal.core.errors import KeyBroken, NotMine
from postseal.core.keys import KeyContext
from tests.core.provider_contract import ProviderContract
from tests.core.stand_ins import CONTEXT, WatchedKeys, broken, local_keys


class TestUnsafeLocalKeys(ProviderContract):
    @pytest.fixture
    def provider(self):
        return local_keys("ours")

    @pytest.fixture
    def stranger(self):
        return local_keys("theirs")


class TestCombinedKeys(ProviderContract):
    @pytest.fixture
    def provider(self):
        return CombinedKeys([local_keys("ours-1"), local_keys("ours-2")])

    @pytest.fixture
    def stranger(self):
        return CombinedKeys([local_keys("theirs-1"), local_keys("theirs-2")])


class TestCombinedKeysOfOne(ProviderContract):
    @pytest.fixture
    def provider(self):
        return CombinedKeys([local_keys("ours")])

    @pytest.fixture
    def stranger(self):
        return local_keys("theirs")


# -- local keys --------------------------------------------------------------------------------------------------------


def test_local_keys_say_that_they_are_not_for_production(caplog):
    with pytest.warns(UnsafeLocalKeysWarning, match="not for production"):
        UnsafeLocalKeys.ephemeral()
    assert "not for production" in caplog.text


@pytest.mark.filterwarnings("ignore::postseal.core.UnsafeLocalKeysWarning")
class TestAFileOfKeys:
    def test_it_opens_in_another_process_what_was_sealed_in_this(self, tmp_path):
        path = tmp_path / "keys.toml"
        UnsafeLocalKeys.create_file(path, 'a \\ and a "')
        made = UnsafeLocalKeys.from_file(path).generate(CONTEXT)
        assert UnsafeLocalKeys.from_file(path).unwrap(made.recipients, CONTEXT) == made.data_key

    def test_it_is_readable_by_its_owner_alone(self, tmp_path):
        path = tmp_path / "keys.toml"
        UnsafeLocalKeys.create_file(path)
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o640)
        with pytest.raises(ConfigError, match="chmod 600"):
            UnsafeLocalKeys.from_file(path)

    def test_it_is_never_overwritten(self, tmp_path):
        path = tmp_path / "keys.toml"
        UnsafeLocalKeys.create_file(path)
        with pytest.raises(FileExistsError):
            UnsafeLocalKeys.create_file(path)

    @pytest.mark.parametrize(
        "text", ["", "[[keys]]", '[[keys]]\nid = "a"\nkey = "c2VjcmV0"', '[[keys]]\nid = "a"\nkey = "c2VjcmV0!"', "keys = 1", "c2VjcmV0 ="], ids=repr
    )  # fmt: skip
    def test_a_wrong_file_is_refused_without_quoting_it(self, tmp_path, text):
        path = tmp_path / "keys.toml"
        path.touch(0o600)
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            UnsafeLocalKeys.from_file(path)
        assert "c2VjcmV0" not in str(caught.value)

    def test_no_file_is_told_with_what_makes_one(self, tmp_path):
        with pytest.raises(ConfigError, match="create_file"):
            UnsafeLocalKeys.from_file(tmp_path / "keys.toml")

    def test_the_first_key_wraps_and_all_unwrap(self):
        """Rotation: the new key first, the old one after it."""
        old, new = os.urandom(32), os.urandom(32)
        made = UnsafeLocalKeys({"old": old}).generate(CONTEXT)
        both = UnsafeLocalKeys({"new": new, "old": old})
        assert both.unwrap(made.recipients, CONTEXT) == made.data_key
        assert [recipient.key_id for recipient in both.generate(CONTEXT).recipients] == [b"new"]


# -- several as one ----------------------------------------------------------------------------------------------------


def test_each_recipient_opens_alone_and_a_third_cannot():
    """A5: one ciphertext, two wraps; whoever is no recipient, like an administrator of the broker, opens nothing."""
    first, second, third = local_keys("first"), local_keys("second"), local_keys("third")
    made = CombinedKeys([first, second]).generate(CONTEXT)
    assert first.unwrap(made.recipients, CONTEXT) == second.unwrap(made.recipients, CONTEXT) == made.data_key
    with pytest.raises(NotMine):
        third.unwrap(made.recipients, CONTEXT)


def test_every_wrap_is_present_or_nothing_is_made():
    """B10: a data key is never the only copy."""
    first, second = WatchedKeys(local_keys("first")), local_keys("second")
    both = CombinedKeys([first, second])
    assert [recipient.key_id for recipient in both.generate(CONTEXT).recipients] == [b"first", b"second"]

    def away(data_key: bytes, context: KeyContext):
        raise KeyUnavailable("away")

    second.wrap = away
    with pytest.raises(KeyUnavailable):
        both.generate(CONTEXT)
    with pytest.raises(KeyUnavailable):
        both.wrap(bytes(32), CONTEXT)


@pytest.mark.parametrize(
    "error", [KeyUnavailable("x"), KeyRefused("x"), KeyBroken("x"), NotMine("x")], ids=repr
)
def test_the_second_opens_where_the_first_cannot(error):
    """B12: one key service away, disabled or not ours, 100 % opens through the other."""
    first, second = WatchedKeys(local_keys("first")), local_keys("second")
    both = CombinedKeys([first, second])
    made = both.generate(CONTEXT)
    first.failing = error
    assert both.unwrap(made.recipients, CONTEXT) == made.data_key


def test_of_several_failures_the_one_that_may_pass_is_told():
    """A message must not be settled while somebody could still open it."""
    kinds = [NotMine, KeyBroken, KeyRefused, KeyUnavailable]
    for worse_at, worse in enumerate(kinds):
        for kind in kinds[:worse_at]:
            for pair in ([kind, worse], [worse, kind]):
                providers = [WatchedKeys() for _ in pair]
                for provider, failing in zip(providers, pair, strict=True):
                    provider.failing = failing("x")
                with pytest.raises(worse):
                    CombinedKeys(providers).unwrap(local_keys().generate(CONTEXT).recipients, CONTEXT)


def test_a_broken_wrap_beside_a_good_one_opens_through_the_good_one():
    both = CombinedKeys([local_keys("first"), local_keys("second")])
    made = both.generate(CONTEXT)
    assert both.unwrap([broken(made.recipients[0]), made.recipients[1]], CONTEXT) == made.data_key


def test_no_providers_and_one_key_twice_are_refused():
    with pytest.raises(ConfigError, match="at least one"):
        CombinedKeys([])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsafeLocalKeysWarning)
        same = [UnsafeLocalKeys({"one": bytes(32)}) for _ in range(2)]
    with pytest.raises(ConfigError, match="same key"):
        CombinedKeys(same).generate(CONTEXT)
