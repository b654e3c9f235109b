"""What every store of records does."""

from __future__ import annotations

import os

from postseal.core import ReferenceStore
from tests.core.kit import HERE, CountedKeys, Party, policy
from tests.core.stand_ins import in_threads
from tests.core.test_references import BODY, short_of


class ReferenceStoreContract:
    """A subclass has the fixtures *store*, and *again*: another object on the same place."""

    def test_what_was_published_is_found_by_others(self, store, again):
        assert isinstance(store, ReferenceStore)
        reference, record = os.urandom(16), os.urandom(700)
        assert again.get(reference) is None
        store.put(reference, record)
        assert again.get(reference) == record
        assert store.get(reference) == record
        assert again.get(os.urandom(16)) is None

    def test_what_is_there_may_be_published_again(self, store, again):
        reference, record = os.urandom(16), b"\x00record\xff"
        for each in (store, again, store):
            each.put(reference, record)
        assert again.get(reference) == record

    def test_many_publish_and_look_up_at_once(self, store, again):
        records = {os.urandom(16): os.urandom(300) for _ in range(16)}
        in_threads(*[lambda r=r, d=d: store.put(r, d) for r, d in records.items()])
        found = in_threads(*[lambda r=r: again.get(r) for r in records])
        assert found == list(records.values())

    def test_a_message_that_names_its_record_opens_elsewhere(self, store, again):
        keys = CountedKeys()
        rules = policy(key_by_reference=True)
        producer = Party(rules, keys=keys, references=store)
        consumer = Party(rules, keys=keys, references=again, clock=producer.clock)
        assert consumer.open(short_of(producer), destination=HERE).body == BODY
