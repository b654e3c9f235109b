"""A policy file is read again while it is in use: nothing is refused, nothing is lost, the key service is not asked."""

from __future__ import annotations

import os
import threading
import time
import warnings

import pytest

from postseal.core import ConfigError, Refused, Sealer, UnsafeLocalKeys
from postseal.core.errors import PolicyFileError
from tests.core.kit import CountedKeys, local_keys

TEXT = """\
sender = "billing-api"

[signers.billing]
algorithm = "hmac-sha256"
keys = [{ id = "a", secret = { file = "billing.key" } }]

[[policy]]
name = "orders"
destinations = ["kafka:orders"]
protection = "privacy"
keys = ["main"]
sign = "billing"
senders = ["billing-api"]

[[policy]]
name = "logs"
destinations = ["kafka:logs"]
keys = ["main"]
"""
SECRET = "ab" * 32


@pytest.fixture
def path(tmp_path):
    """A policy file, and the secret that it refers to."""
    secret = tmp_path / "billing.key"
    secret.write_text("00" * 32)
    secret.chmod(0o600)
    path = tmp_path / "policy.toml"
    path.write_text(TEXT.replace('file = "billing.key"', 'file = "billing.key", encoding = "hex"'))
    return path


def change(path, right, written):
    """Put a new file in the place of the old one, as editors and orchestrators do."""
    text = path.read_text()
    assert right in text
    new = path.with_suffix(".new")
    new.write_text(text.replace(right, written))
    new.replace(path)


def wait_for(condition):
    """Wait until it holds; only so long that a test which fails ends."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it never came to hold")


def test_what_has_changed_is_in_force_and_said(path):
    told = []
    sealer = Sealer.from_file(path, keys={"main": local_keys()}, on_reload=told.append)
    sealer.seal(b"1", destination="kafka:logs")
    change(path, '"kafka:logs"', '"kafka:trails"')
    reload = sealer.reload()
    assert (reload.changed, reload.added, reload.removed, reload.error) == (("logs",), (), (), None)
    assert told == [reload]
    sealer.seal(b"1", destination="kafka:trails")
    for verb in (sealer.seal, sealer.open):
        with pytest.raises(ConfigError, match="no policy speaks"):
            verb(b"1", destination="kafka:logs")


def test_policies_come_and_go(path):
    sealer = Sealer.from_file(path, keys={"main": local_keys()})
    change(path, 'name = "logs"', 'name = "trails"')
    reload = sealer.reload()
    assert (reload.added, reload.removed) == (("trails",), ("logs",))


def test_a_reload_costs_no_call_to_the_key_service(path):
    keys = CountedKeys()
    sealer = Sealer.from_file(path, keys={"main": keys})
    envelope = sealer.seal(b"1", destination="kafka:orders")
    sealer.open(envelope, destination="kafka:orders")
    change(path, 'name = "logs"', 'name = "trails"')
    sealer.reload()
    sealer.seal(b"1", destination="kafka:orders")
    sealer.open(envelope, destination="kafka:orders")
    assert (keys.generated, keys.unwrapped) == (1, 1)


def test_keys_of_the_file_are_taken_over_where_they_are_the_same(path, tmp_path):
    UnsafeLocalKeys.create_file(tmp_path / "keys.toml")
    path.write_text(path.read_text() + '[keys.main]\nprovider = "local"\nfile = "keys.toml"\n')
    with pytest.warns(UserWarning, match="not for production"):
        sealer = Sealer.from_file(path)
    provider, ring = sealer._rules.providers["orders"], sealer._rules.rings["orders"]
    change(path, 'name = "logs"', 'name = "trails"')
    sealer.reload()
    assert sealer._rules.providers["orders"] is provider
    assert sealer._rules.rings["orders"] is ring


def test_a_secret_that_was_replaced_is_another(path, tmp_path):
    sealer = Sealer.from_file(path, keys={"main": local_keys()})
    envelope = sealer.seal(b"1", destination="kafka:orders")
    (tmp_path / "billing.key").write_text(SECRET)
    sealer.reload()
    assert sealer.open(sealer.seal(b"2", destination="kafka:orders"), destination="kafka:orders").body == b"2"
    with pytest.raises(Refused):
        sealer.open(envelope, destination="kafka:orders")


def test_a_policy_that_seals_otherwise_seals_with_another_data_key(path):
    keys = CountedKeys()
    sealer = Sealer.from_file(path, keys={"main": keys})
    sealer.seal(b"1", destination="kafka:logs")
    change(path, 'destinations = ["kafka:logs"]', 'destinations = ["kafka:logs"]\nversion = 7')
    sealer.reload()
    sealer.seal(b"1", destination="kafka:logs")
    assert keys.generated == 2


def test_functions_at_hand_look_the_rules_up_each_time(path):
    sealer = Sealer.from_file(path, keys={"main": local_keys()})
    sealer.seal(b"1", destination="kafka:logs")
    seal, open_ = sealer.at_hand("kafka:logs"), sealer.open_at_hand("kafka:logs")
    body = sealer.body_at_hand("kafka:logs")
    envelope = seal(b"1")
    sealer.open(envelope, destination="kafka:logs")
    parts = sealer.parts_at_hand("kafka:logs")
    assert open_(envelope).body == body(envelope) == b"1"
    assert parts(envelope) == (b"1", None, None)
    change(path, '"kafka:logs"', '"kafka:trails"')
    sealer.reload()
    assert seal(b"1") is None
    assert open_(envelope) is body(envelope) is parts(envelope) is None


def test_what_others_keep_of_the_rules_is_forgotten_with_them(path):
    class Kept(dict):
        pass

    sealer = Sealer.from_file(path, keys={"main": local_keys()})
    kept, gone = Kept(a=1), Kept()
    sealer.forget_with(kept)
    sealer.forget_with(gone)
    del gone
    sealer.reload()
    assert kept == {}


def test_a_file_with_a_mistake_leaves_what_was_before_in_force_and_says_so(path, caplog):
    told = []
    sealer = Sealer.from_file(path, keys={"main": local_keys()}, on_reload=told.append)
    change(path, 'protection = "privacy"', 'protection = "privcy"')
    with pytest.raises(PolicyFileError, match="did you mean 'privacy'"):
        sealer.reload()
    (reload,) = told
    assert "privcy" in str(reload.error)
    assert "is not in force, what was before still is" in caplog.text
    envelope = sealer.seal(b"1", destination="kafka:orders")
    assert sealer.open(envelope, destination="kafka:orders").sender == "billing-api"


def test_a_file_that_is_gone_leaves_what_was_before_in_force(path):
    sealer = Sealer.from_file(path, keys={"main": local_keys()})
    path.unlink()
    with pytest.raises(ConfigError):
        sealer.reload()
    sealer.seal(b"1", destination="kafka:orders")


def test_a_callback_that_fails_stops_nothing(path, caplog):
    def fail(_):
        raise RuntimeError("no")

    sealer = Sealer.from_file(path, keys={"main": local_keys()}, on_reload=fail)
    change(path, '"kafka:logs"', '"kafka:trails"')
    sealer.reload()
    sealer.seal(b"1", destination="kafka:trails")
    assert "the callback failed" in caplog.text


def test_a_sealer_made_of_objects_has_no_file_to_read():
    from tests.core.kit import party

    with pytest.raises(ConfigError, match="from_file"):
        party().sealer.reload()


def test_a_watched_file_is_read_again_when_it_changes_or_a_secret_of_it_does(path, tmp_path):
    told = []
    with Sealer.from_file(path, keys={"main": local_keys()}, watch=0.02, on_reload=told.append) as sealer:
        change(path, '"kafka:logs"', '"kafka:trails"')
        wait_for(lambda: len(told) == 1)
        sealer.seal(b"1", destination="kafka:trails")
        (tmp_path / "billing.key").write_text(SECRET)
        wait_for(lambda: len(told) == 2)
        change(path, 'name = "logs"', "name = logs, or so")
        wait_for(lambda: len(told) == 3)
        assert told[2].error is not None
        sealer.seal(b"1", destination="kafka:trails")
        change(path, "name = logs, or so", 'name = "logs"')
        wait_for(lambda: len(told) == 4)
    assert [each.error for each in told if each.error is None] == [None] * 3


def test_a_sealer_that_is_closed_or_gone_watches_no_more(path):
    def watching():
        return [each for each in threading.enumerate() if each.name == "postseal-policy"]

    wait_for(lambda: not watching())  # those of other tests
    sealer = Sealer.from_file(path, keys={"main": local_keys()}, watch=0.02)
    assert len(watching()) == 1
    sealer.close()
    wait_for(lambda: not watching())
    Sealer.from_file(path, keys={"main": local_keys()}, watch=0.02)
    import gc

    gc.collect()
    wait_for(lambda: not watching())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_watches_by_itself(path):
    sealer = Sealer.from_file(path, keys={"main": local_keys()}, watch=0.02)
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # threads at the time of the fork: the point of it
        child = os.fork()
    if not child:
        os.read(read, 1)  # the parent has changed the file
        for _ in range(3000):
            if sealer.policies[1].destinations == ("kafka:trails",):
                os._exit(0)
            time.sleep(0.01)
        os._exit(1)
    change(path, '"kafka:logs"', '"kafka:trails"')
    os.write(write, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    sealer.close()
    os.close(read)
    os.close(write)


def test_eight_threads_seal_and_open_through_two_hundred_reloads_and_nothing_is_refused_or_lost(path):
    """Rotation of policies under load: 0 refused, 0 lost."""
    keys = CountedKeys()
    sealer = Sealer.from_file(path, keys={"main": keys})
    done, faults, counts = threading.Event(), [], [0] * 8

    def work(index):
        destination = ("kafka:orders", "kafka:logs")[index % 2]
        try:
            while not done.is_set():
                body = f"{index}:{counts[index]}".encode()
                envelope = sealer.seal(body, destination=destination)
                assert sealer.open(envelope, destination=destination).body == body
                counts[index] += 1
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the fault that is looked for
            faults.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    names = ['"spare-a"', '"spare-b"']
    path.write_text(
        path.read_text() + '[[policy]]\nname = "spare-a"\ndestinations = ["kafka:spare"]\nkeys = ["main"]\n'
    )
    for turn in range(200):
        sealer.reload()
        change(path, names[turn % 2], names[1 - turn % 2])
    done.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert min(counts) > 0
    assert sealer.generation == 200
    assert sealer.auditor.counts == {}
    # One for each destination, and one made ahead of time where half of a data key's messages were used up.
    assert keys.unwrapped <= keys.generated <= 4
