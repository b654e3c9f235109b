"""`protect` and `unprotect`: what can be protected, once, and what is refused."""

import logging
import subprocess
import sys

import boto3
import pytest

from postseal.core import ConfigError, Refused
from postseal.sqs import protect, unprotect
from tests.sqs.conftest import _OPTIONS, Wire, make_client, make_resource

CLEAR = "4111 1111 1111 1111"


@pytest.fixture
def place(line):
    return line.place()


@pytest.fixture
def sealer(world, place):
    return world.sealer(world.policy(place))


def body_at_the_broker(line, place):
    return line.held(place, 1)[0].body.decode()


def test_the_client_itself_comes_back(line, sealer, place):
    client = make_client()
    assert protect(client, sealer) is client
    client.send_message(QueueUrl=line.url(place), MessageBody=CLEAR)
    assert body_at_the_broker(line, place) != CLEAR


def test_a_client_that_was_used_before_can_be_protected(line, sealer, place):
    client, url = make_client(), line.url(place)
    client.send_message(QueueUrl=url, MessageBody="before")
    client.receive_message(QueueUrl=url, VisibilityTimeout=0)
    protect(client, sealer)
    client.send_message(QueueUrl=url, MessageBody=CLEAR)
    bodies = {raw.body.decode() for raw in line.held(place, 2)}
    assert "before" in bodies
    assert CLEAR not in bodies


@pytest.mark.parametrize("part", ["resource", "queue", "message"])
def test_anything_of_a_resource_protects_its_client(line, sealer, place, part):
    resource = make_resource()
    queue = resource.Queue(line.url(place))
    target = {"resource": resource, "queue": queue, "message": queue.Message("handle")}[part]
    assert protect(target, sealer) is target
    queue.send_message(MessageBody=CLEAR)
    assert body_at_the_broker(line, place) != CLEAR
    [message] = queue.receive_messages()
    assert message.body == CLEAR


def test_other_clients_are_left_alone(line, sealer, place):
    session = boto3.Session()
    protect(session.client("sqs", **_OPTIONS), sealer)
    session.client("sqs", **_OPTIONS).send_message(QueueUrl=line.url(place), MessageBody=CLEAR)
    assert body_at_the_broker(line, place) == CLEAR


def test_protecting_again_with_the_same_sealer_does_nothing(line, sealer, place):
    client = protect(protect(make_client(), sealer), sealer)
    client.send_message(QueueUrl=line.url(place), MessageBody=CLEAR)
    assert (
        client.receive_message(QueueUrl=line.url(place), VisibilityTimeout=0)["Messages"][0]["Body"] == CLEAR
    )
    unprotect(client)
    assert client.receive_message(QueueUrl=line.url(place))["Messages"][0]["Body"] != CLEAR


def test_another_sealer_is_an_error_and_changes_nothing(world, line, sealer, place):
    client = protect(make_client(), sealer)
    with pytest.raises(ConfigError, match="another sealer"):
        protect(client, world.sealer(world.policy(place)))
    client.send_message(QueueUrl=line.url(place), MessageBody=CLEAR)
    assert (
        sealer.open(line.envelope(line.held(place, 1)[0].body), destination=f"sqs:{place}").body
        == CLEAR.encode()
    )


def test_other_options_are_an_error(sealer, aws):
    client = protect(make_client(), sealer)
    with pytest.raises(ConfigError, match="other options"):
        protect(client, sealer, max_bytes=262_144)


def test_a_resource_and_its_client_are_one(sealer, aws):
    resource = protect(make_resource(), sealer)
    assert unprotect(resource.meta.client) is resource.meta.client
    protect(resource, sealer, max_bytes=2048)


def test_unprotect_undoes_all(line, sealer, place):
    client = unprotect(protect(make_client(), sealer))
    wire = Wire(client)
    client.send_message(QueueUrl=line.url(place), MessageBody=CLEAR)
    client.receive_message(QueueUrl=line.url(place), MessageAttributeNames=["x"])
    assert wire.sent("SendMessage")[0]["MessageBody"] == CLEAR
    assert set(wire.sent("ReceiveMessage")[0]) == {"QueueUrl", "MessageAttributeNames"}


def test_unprotect_leaves_no_handler_behind(line, sealer, place, caplog):
    """botocore logs each handler that it calls."""
    client, url = protect(make_client(), sealer), line.url(place)
    caplog.set_level(logging.DEBUG, "botocore.hooks")

    def use():
        caplog.clear()
        client.send_message(QueueUrl=url, MessageBody=CLEAR)
        client.send_message_batch(QueueUrl=url, Entries=[{"Id": "1", "MessageBody": CLEAR}])
        client.receive_message(QueueUrl=url)
        return caplog.text.count("postseal")

    assert use() == 9
    unprotect(client)
    assert use() == 0


def test_unprotect_of_what_is_not_protected_does_nothing(aws):
    client = make_client()
    assert unprotect(client) is client


# -- what is refused


@pytest.mark.parametrize(
    "make", [lambda: boto3.client("kms", **_OPTIONS), lambda: boto3.resource("s3", **_OPTIONS)]
)
def test_another_service_is_an_error(sealer, make):
    with pytest.raises(ConfigError, match="SQS client"):
        protect(make(), sealer)


@pytest.mark.parametrize("target", [None, "sqs", boto3.Session, object()])
def test_what_is_no_client_is_an_error(sealer, target):
    with pytest.raises(ConfigError, match="SQS client"):
        protect(target, sealer)


def test_what_is_no_sealer_is_an_error(aws):
    with pytest.raises(ConfigError, match="takes a Sealer, not str"):
        protect(make_client(), "sealer")


def test_the_extended_client_is_an_error(sealer, aws):
    """amazon-sqs-extended-client puts bodies into S3 above our hooks, in clear. It makes its clients in this way."""
    session = boto3.Session()

    def add_client_attributes(class_attributes, **_):
        class_attributes["large_payload_support"] = property(lambda self: None)

    session.events.register("creating-client-class.sqs", add_client_attributes)
    with pytest.raises(ConfigError, match="amazon-sqs-extended-client"):
        protect(session.client("sqs", **_OPTIONS), sealer)
    with pytest.raises(ConfigError, match="amazon-sqs-extended-client"):
        protect(session.resource("sqs", **_OPTIONS), sealer)


@pytest.mark.parametrize(
    "options", [{"max_bytes": 0}, {"max_bytes": 1e6}, {"come_again_after": -1}, {"come_again_after": True}]
)
def test_an_option_out_of_range_is_an_error(sealer, aws, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        protect(make_client(), sealer, **options)


def test_a_quarantine_elsewhere_needs_a_url(world, aws):
    policy = world.policy("orders", on_refused="quarantine", quarantine="kafka:refused")
    sealer = world.sealer(policy)
    with pytest.raises(ConfigError, match="kafka:refused"):
        protect(make_client(), sealer)
    protect(make_client(), sealer, quarantine={"kafka:refused": "https://sqs/1/refused"})


def test_a_quarantine_that_can_be_no_queue_is_an_error(world, aws):
    policy = world.policy("orders", on_refused="quarantine", quarantine="sqs:no such queue")
    with pytest.raises(ConfigError, match="no such queue"):
        protect(make_client(), world.sealer(policy))


def test_without_its_client_the_adapter_names_its_extra():
    code = (
        "import sys; sys.modules['botocore'] = None\n"
        "from postseal.core import MissingExtraError\n"
        "try: import postseal.sqs\n"
        "except MissingExtraError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "postseal[sqs]" in done.stdout


# -- calls that cannot be sealed


@pytest.mark.parametrize("method", ["send_message", "send_message_batch"])
def test_no_url_is_signed_to_send_with(line, sealer, place, method):
    """Its signature would be over a body that its user does not have: with a sealed one it is useless, with a clear one a leak."""
    client = protect(make_client(), sealer)
    params = {"QueueUrl": line.url(place)}
    if method == "send_message":
        params["MessageBody"] = CLEAR
    else:
        params["Entries"] = [{"Id": "1", "MessageBody": CLEAR}]
    with pytest.raises(ConfigError, match="presigned"):
        client.generate_presigned_url(method, Params=params)


def test_a_url_to_receive_with_brings_sealed_messages(line, sealer, place):
    client = protect(make_client(), sealer)
    params = {"QueueUrl": line.url(place), "MessageAttributeNames": ["x"]}
    assert client.generate_presigned_url("receive_message", Params=params).startswith("https://")
    assert params == {"QueueUrl": line.url(place), "MessageAttributeNames": ["x"]}


def test_a_queue_without_a_policy_is_an_error_in_both_directions(line, sealer):
    client, url = protect(make_client(), sealer), line.url(line.place())
    wire = Wire(client)
    with pytest.raises(ConfigError, match="no policy"):
        client.send_message(QueueUrl=url, MessageBody=CLEAR)
    with pytest.raises(ConfigError, match="no policy"):
        client.send_message_batch(QueueUrl=url, Entries=[{"Id": "1", "MessageBody": CLEAR}])
    with pytest.raises(ConfigError, match="no policy"):
        client.receive_message(QueueUrl=url)
    assert wire.requests == []


def test_calls_of_other_kinds_pass(line, sealer, place):
    client = protect(make_client(), sealer)
    url = client.create_queue(QueueName="unspoken")["QueueUrl"]
    client.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "5"})
    client.purge_queue(QueueUrl=url)
    client.delete_queue(QueueUrl=url)


def test_a_send_that_began_before_is_not_sent(line, sealer, place):
    client = make_client()
    wire = Wire(client)
    client.meta.events.register("before-parameter-build", lambda **_: protect(client, sealer) and None)
    with pytest.raises(ConfigError, match="before protect"):
        client.send_message(QueueUrl=line.url(place), MessageBody=CLEAR)
    assert wire.requests == []


def test_a_receive_that_began_before_hands_on_nothing(line, sealer, place):
    line.bare.send_message(QueueUrl=line.url(place), MessageBody="injected")
    client = make_client()
    client.meta.events.register("before-call.sqs", lambda **_: protect(client, sealer) and None)
    with pytest.raises(ConfigError, match="before protect"):
        client.receive_message(QueueUrl=line.url(place), VisibilityTimeout=0)
    with pytest.raises(Refused):
        client.receive_message(QueueUrl=line.url(place))
