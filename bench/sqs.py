"""What protection costs an SQS client: calls per second with HTTP answered in this process, bare and protected, and each handler alone.

    python bench/sqs.py [--json]

No network and no server are in these figures, so the share that is ours is the largest that it can be.
"""

import argparse
import hashlib
import io
import json
import statistics
import time
import warnings

import boto3
from botocore.awsrequest import AWSResponse

from postseal.core import Policy, Sealer, UnsafeLocalKeys
from postseal.sqs import protect
from postseal.sqs._hooks import hooks_of

URL = "https://sqs.eu-west-1.amazonaws.com/111122223333/orders"
BODY = "x" * 1024
ROUNDS = 7
SECONDS = 0.3


class _Content(io.BytesIO):
    def stream(self, **_):
        yield self.read()


def _md5(text):
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _answer(request, event_name, held, **_):
    """Answer as SQS would; receives hand out the last ten bodies that were sent."""
    operation = event_name.rpartition(".")[2]
    if operation == "ReceiveMessage":
        messages = [
            {"MessageId": str(n), "ReceiptHandle": str(n), "Body": body, "MD5OfBody": _md5(body)}
            for n, body in enumerate(held)
        ]
        content = {"Messages": messages}
    else:
        params = json.loads(request.body)
        if operation == "SendMessage":
            content = {"MessageId": "1", "MD5OfMessageBody": _md5(params["MessageBody"])}
        else:
            held[:] = [entry["MessageBody"] for entry in params["Entries"]]
            content = {
                "Successful": [
                    {"Id": e["Id"], "MessageId": "1", "MD5OfMessageBody": _md5(e["MessageBody"])}
                    for e in params["Entries"]
                ],
                "Failed": [],
            }
    return AWSResponse(request.url, 200, {}, _Content(json.dumps(content).encode()))


def _client(sealer=None):
    session = boto3.Session("x", "x", region_name="eu-west-1")
    client = session.client("sqs")
    held = []
    client.meta.events.register_first(
        "before-send.sqs", lambda request, event_name, **_: _answer(request, event_name, held)
    )
    if sealer is not None:
        protect(client, sealer)
    return client


def _per_second(call):
    done, end = 0, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        call()
        done += 1
    return done / SECONDS


def _microseconds(call, times=2000):
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times * 1e6


def _calls(client):
    entries = [{"Id": str(n), "MessageBody": BODY} for n in range(10)]
    return {
        "send": lambda: client.send_message(QueueUrl=URL, MessageBody=BODY),
        "send_batch_of_10": lambda: client.send_message_batch(QueueUrl=URL, Entries=entries),
        "receive_10": lambda: client.receive_message(QueueUrl=URL, MaxNumberOfMessages=10),
    }


def _whole(sealer):
    bare, ours = _calls(_client()), _calls(_client(sealer))
    rates = {name: ([], []) for name in bare}
    for _ in range(ROUNDS):
        for name, (before, after) in rates.items():
            before.append(_per_second(bare[name]))
            after.append(_per_second(ours[name]))
    figures = {}
    for name, (before, after) in rates.items():
        ratio = statistics.median(b / a for a, b in zip(before, after, strict=True))
        figures[name] = {
            "bare_per_s": round(statistics.median(before)),
            "vs_bare": round(ratio, 2),
        }
    return figures


def _parts(sealer):
    """Time the handlers by themselves, on what they get from botocore."""
    hooks = hooks_of(_client(sealer))
    seal, guard, check = hooks._sending.seal, hooks._sending.guard, hooks._sending.check
    params, context = {"QueueUrl": URL, "MessageBody": BODY}, {}
    seal(params, context)
    request = {"body": json.dumps(params).encode()}
    md5 = _md5(params["MessageBody"])
    batch, batch_context = (
        {"QueueUrl": URL, "Entries": [{"Id": str(n), "MessageBody": BODY} for n in range(10)]},
        {},
    )
    hooks._sending.seal_batch(batch, batch_context)
    batch_request = {"body": json.dumps(batch).encode()}
    messages = [{"Body": e["MessageBody"], "MD5OfBody": _md5(e["MessageBody"])} for e in batch["Entries"]]
    asked = {}
    hooks._receiving.ask({"QueueUrl": URL}, asked)
    return {
        "seal": lambda: seal({"QueueUrl": URL, "MessageBody": BODY}, {}),
        "of_which_sealer": lambda: sealer.seal(BODY.encode(), destination="sqs:orders"),
        "guard": lambda: guard(request, context),
        "guard_batch_of_10": lambda: guard(batch_request, batch_context),
        "check_md5": lambda: check({"MD5OfMessageBody": md5}, context),
        "open_10": lambda: hooks._receiving.receive({"Messages": [dict(m) for m in messages]}, asked),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    warnings.simplefilter("ignore")
    policy = Policy(name="orders", destinations=["sqs:orders"], keys=["main"])
    sealer = Sealer(sender="shop", policies=[policy], keys={"main": UnsafeLocalKeys.ephemeral()})
    figures = {
        "body_bytes": len(BODY),
        "calls": _whole(sealer),
        "microseconds": {
            name: round(statistics.median(_microseconds(call) for _ in range(ROUNDS)), 1)
            for name, call in _parts(sealer).items()
        },
    }
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    for name, figure in figures["calls"].items():
        print(f"{name:20} {figure['bare_per_s']:>7,}/s bare, protected {figure['vs_bare']:.2f} of it")
    for name, figure in figures["microseconds"].items():
        print(f"{name:20} {figure:>7.1f} us")


if __name__ == "__main__":
    main()
