"""What is particular to clients with coroutines; all else is the contract's, and of test_sending and test_receiving, whose code they share."""

# ruff: noqa: PLR0917 - a test's arguments are its fixtures, which pytest gives by name

import asyncio
import hashlib

import pytest

from postseal.core import ConfigError, KeyUnavailable, Refused, Verdict
from postseal.sqs import VERDICT_ATTRIBUTE, protect, unprotect
from tests.contract import Raw, World

CLEAR = "4111 1111 1111 1111"


@pytest.fixture
def line(aio_line):
    return aio_line


@pytest.fixture
def world(line):
    return World(line)


@pytest.fixture
def place(line):
    return line.place()


@pytest.fixture
def url(line, place):
    return line.url(place)


@pytest.fixture
def client_of(aio, world):
    """Make a protected client of aiobotocore for a policy."""
    return lambda policy, **options: protect(aio.client(), world.sealer(policy), **options)


async def until(event):
    """Wait for an event of threads, while the loop goes round: were it blocked, this would never end."""
    while not event.is_set():  # noqa: ASYNC110 - it is set in another thread, which knows no loop
        await asyncio.sleep(0.005)


def bodies(answer):
    return [message["Body"] for message in answer.get("Messages", ())]


# -- the same as without coroutines


def test_md5s_are_those_of_the_callers_bodies(aio, world, place, url, client_of):
    client = client_of(world.policy(place))
    answer = aio.run(client.send_message(QueueUrl=url, MessageBody=CLEAR))
    batch = aio.run(client.send_message_batch(QueueUrl=url, Entries=[{"Id": "1", "MessageBody": CLEAR}]))
    received = aio.run(client.receive_message(QueueUrl=url, MaxNumberOfMessages=10))
    md5 = hashlib.md5(CLEAR.encode(), usedforsecurity=False).hexdigest()
    assert answer["MD5OfMessageBody"] == batch["Successful"][0]["MD5OfMessageBody"] == md5
    assert {message["MD5OfBody"] for message in received["Messages"]} == {md5}


def test_unprotect_undoes_all(aio, line, world, place, url, client_of):
    client = client_of(world.policy(place))
    assert unprotect(client) is client
    aio.run(client.send_message(QueueUrl=url, MessageBody=CLEAR))
    assert [raw.body.decode() for raw in line.held(place, 1)] == [CLEAR]


def test_another_sealer_and_other_options_are_errors(world, place, client_of):
    policy = world.policy(place)
    client = client_of(policy)
    with pytest.raises(ConfigError, match="another sealer"):
        protect(client, world.sealer(policy))


def test_no_url_is_signed_to_send_with(aio, world, place, url, client_of):
    client = client_of(world.policy(place))
    params = {"QueueUrl": url, "MessageBody": CLEAR}
    with pytest.raises(ConfigError, match="presigned"):
        aio.run(client.generate_presigned_url("send_message", Params=params))


@pytest.mark.parametrize("wait", [True, False], ids=["coroutine", "function"])
def test_what_a_later_handler_puts_in_clear_is_not_sent(aio, line, world, place, url, client_of, wait):
    """Handlers of others may be coroutines, too: the guard comes after both."""
    client = client_of(world.policy(place))

    async def overwrite(params, **_):
        await asyncio.sleep(0)
        params["MessageBody"] = CLEAR

    def overwrite_now(params, **_):
        params["MessageBody"] = CLEAR

    client.meta.events.register_last("before-parameter-build", overwrite if wait else overwrite_now)
    with pytest.raises(ConfigError, match="changed a body"):
        aio.run(client.send_message(QueueUrl=url, MessageBody=CLEAR))
    assert not line.has_message(place)


def test_a_call_that_began_before_protect_is_not_sent(aio, line, world, place, url):
    client, sealer = aio.client(), world.sealer(world.policy(place))

    async def late(**_):
        protect(client, sealer)

    client.meta.events.register("before-parameter-build", late)
    with pytest.raises(ConfigError, match="before protect"):
        aio.run(client.send_message(QueueUrl=url, MessageBody=CLEAR))
    assert not line.has_message(place)


def test_without_the_key_service_nothing_is_sent(aio, line, world, place, url, client_of):
    client = client_of(world.policy(place))
    world.keys.unavailable.set()
    with pytest.raises(KeyUnavailable):
        aio.run(client.send_message(QueueUrl=url, MessageBody=CLEAR))
    assert not line.has_message(place)


def test_a_receive_of_nothing_but_refused_messages_raises_where_the_policy_says(
    aio, line, world, place, url, client_of
):
    line.put(place, Raw(b"injected"))
    with pytest.raises(Refused):
        aio.run(client_of(world.policy(place)).receive_message(QueueUrl=url))
    assert world.verdicts() == [Verdict.UNPROTECTED]


@pytest.mark.parametrize("bad", range(4))
def test_one_bad_message_is_quarantined_beside_the_good_ones(aio, line, world, place, url, client_of, bad):
    """A10, E5: wherever it stands in the batch."""
    refused = line.place()
    policy = world.policy(place, on_refused="quarantine", quarantine=f"sqs:{refused}")
    client, sender = client_of(policy), line.protected(world.sealer(policy))
    for at in range(4):
        if at == bad:
            line.put(place, Raw(b"injected", {"tenant": "north"}))
        else:
            sender.send_message(QueueUrl=url, MessageBody=f"order {at}")
    came = []
    while len(came) < 3:
        came += bodies(aio.run(client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)))
    assert sorted(came) == [f"order {at}" for at in range(4) if at != bad]
    [held] = line.held(refused, 1)
    assert held.body == b"injected"
    assert held.headers.pop("postseal-destination").startswith("sqs:")
    assert held.headers == {"tenant": "north", VERDICT_ATTRIBUTE: "unprotected"}
    assert world.verdicts() == [Verdict.UNPROTECTED]


def test_the_pause_is_awaited(aio, line, world, place, url, client_of):
    """B14: while all waits for the key service, a loop around the receive does not run hot."""
    policy = world.policy(place)
    line.send(world.sealer(policy), place, CLEAR.encode())
    naps = []

    async def nap(seconds):
        naps.append(seconds)
        await asyncio.sleep(0)

    client = client_of(policy, sleep=nap, come_again_after=0)
    world.keys.unavailable.set()
    assert bodies(aio.run(client.receive_message(QueueUrl=url, WaitTimeSeconds=1))) == []
    assert naps == [1.0]
    world.keys.unavailable.clear()
    assert bodies(aio.run(client.receive_message(QueueUrl=url))) == [CLEAR]


def test_a_client_that_tracing_wraps_is_still_one_of_coroutines(aio, line, world, place, url):
    """Such libraries put a plain function around the private one that makes the calls."""
    client = aio.client()
    inner = client._make_api_call
    client._make_api_call = lambda *arguments: inner(*arguments)  # noqa: PLW0108 - a plain function is what it is to be
    protect(client, world.sealer(world.policy(place, on_refused="discard")))
    line.put(place, Raw(b"injected"))
    aio.run(client.send_message(QueueUrl=url, MessageBody=CLEAR))
    came = []
    while not came:
        came = bodies(aio.run(client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)))
    assert came == [CLEAR]


# -- the loop


def test_sending_does_not_block_the_loop(aio, world, place, url, client_of):
    """The key service is slow: other tasks go on."""
    client = client_of(world.policy(place))
    world.keys.slow.set()

    async def use():
        sending = asyncio.create_task(client.send_message(QueueUrl=url, MessageBody=CLEAR))
        await until(world.keys.waiting)
        assert not sending.done()
        world.keys.unblock()
        return await sending

    assert aio.run(use())["MessageId"]


def test_receiving_does_not_block_the_loop(aio, line, world, place, url, client_of):
    policy = world.policy(place)
    line.send(world.sealer(policy), place, CLEAR.encode())
    client = client_of(policy)
    world.keys.slow.set()

    async def use():
        receiving = asyncio.create_task(client.receive_message(QueueUrl=url))
        await until(world.keys.waiting)
        assert not receiving.done()
        world.keys.unblock()
        return await receiving

    assert bodies(aio.run(use())) == [CLEAR]


def test_many_tasks_share_one_client_and_one_data_key(aio, line, world, place, url, client_of):
    """D4: and each is answered about its own message."""
    policy = world.policy(place)
    client = client_of(policy)

    async def send(number):
        body = f"order {number}"
        answer = await client.send_message(QueueUrl=url, MessageBody=body)
        return answer["MD5OfMessageBody"] == hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()

    async def use():
        return await asyncio.gather(*(send(number) for number in range(20)))

    assert all(aio.run(use()))
    with line.receiving(world.sealer(policy), place) as receiving:
        assert sorted(receiving.take(20)) == sorted(b"order %d" % number for number in range(20))
    assert world.keys.calls["generate"] == 1


def test_a_task_cancelled_while_it_receives_loses_nothing(aio, line, world, place, url, client_of):
    """B14: the message was neither handed on nor settled, and comes again after its visibility timeout."""
    policy = world.policy(place)
    line.send(world.sealer(policy), place, CLEAR.encode())
    client = client_of(policy)
    world.keys.slow.set()

    async def use():
        receiving = asyncio.create_task(client.receive_message(QueueUrl=url, VisibilityTimeout=0))
        await until(world.keys.waiting)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        world.keys.unblock()
        return await client.receive_message(QueueUrl=url)

    assert bodies(aio.run(use())) == [CLEAR]
    assert world.events == []


def test_a_task_cancelled_while_it_quarantines_deletes_nothing(aio, line, world, place, url, client_of):
    """A10: the copy may be there already; better twice in quarantine than lost."""
    refused = line.place()
    policy = world.policy(place, on_refused="quarantine", quarantine=f"sqs:{refused}")
    client = client_of(policy)
    line.put(place, Raw(b"injected"))

    async def use():
        reached = asyncio.Event()

        async def hold(**_):
            reached.set()
            await asyncio.Event().wait()

        client.meta.events.register("before-call.sqs.DeleteMessageBatch", hold)
        receiving = asyncio.create_task(client.receive_message(QueueUrl=url, VisibilityTimeout=0))
        await reached.wait()
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving

    aio.run(use())
    assert [raw.body for raw in line.held(place, 1)] == [b"injected"]
    assert [raw.body for raw in line.held(refused, 1)] == [b"injected"]


def test_a_key_at_hand_is_used_without_a_turn_of_the_loop(aio, world, place, url, client_of):
    """A cached data key is cheaper than any wait for it."""
    client = client_of(world.policy(place))
    aio.run(client.send_message(QueueUrl=url, MessageBody=CLEAR))
    handlers = client.meta.events._postseal
    sealing = handlers._seal({"QueueUrl": url, "MessageBody": CLEAR}, {}, batch=False)
    with pytest.raises(StopIteration):
        sealing.send(None)
