"""What protection costs an SQS client: calls per second with HTTP answered in this process, bare and protected; and where it goes.

    python bench/sqs.py [--json] [--rounds N]

No network and no server are in these figures, so the share that is ours is the largest that it can be: the time that it takes to answer
in the place of SQS is taken out. ``sqs.send``, ``sqs.batch`` and ``sqs.receive`` are ratios: protected calls per second to bare ones.
"""

import argparse
import hashlib
import io
import json
import statistics
import sys
import time
import warnings
from contextlib import ExitStack, contextmanager
from unittest import mock

import boto3
from botocore.awsrequest import AWSResponse

from postseal.core import Policy, Sealer, UnsafeLocalKeys
from postseal.core.accelerator import native
from postseal.sqs import _sending, _sorting, protect
from postseal.sqs._text import text_of

URL = "https://sqs.eu-west-1.amazonaws.com/111122223333/orders"
BODY = "x" * 1024
ROUNDS = 60
CALLS = 20
"""Of one kind in a row: a round of bare and protected ones is over before the machine changes its speed."""
answering = 0.0
"""Seconds spent so far in the place of SQS."""


class _Content(io.BytesIO):
    def stream(self, **_):
        yield self.read()


def _md5(text):
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _answer(request, event_name, held, **_):
    global answering  # noqa: PLW0603 - one clock for all clients
    start = time.thread_time()
    try:
        return _answer_now(request, event_name, held)
    finally:
        answering += time.thread_time() - start


def _answer_now(request, event_name, held):
    """Answer as SQS would; receives hand out the last ten bodies that were sent."""
    operation = event_name.rpartition(".")[2]
    params = json.loads(request.body)
    if operation == "ReceiveMessage":
        messages = [
            {"MessageId": str(n), "ReceiptHandle": str(n), "Body": body, "MD5OfBody": _md5(body)}
            for n, body in enumerate(held)
        ]
        if asked := params.get("MessageSystemAttributeNames"):
            messages = [{**message, "Attributes": dict.fromkeys(asked, "1")} for message in messages]
        content = {"Messages": messages}
    elif operation == "SendMessage":
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


def _calls(client):
    entries = [{"Id": str(n), "MessageBody": BODY} for n in range(10)]
    return {
        "send": lambda: client.send_message(QueueUrl=URL, MessageBody=BODY),
        "batch": lambda: client.send_message_batch(QueueUrl=URL, Entries=entries),
        "receive": lambda: client.receive_message(QueueUrl=URL, MaxNumberOfMessages=10),
    }


def _microseconds(call):
    """Return how long a call takes without the answering."""
    before, start = answering, time.thread_time()
    for _ in range(CALLS):
        call()
    return (time.thread_time() - start - (answering - before)) / CALLS * 1e6


def _sealer():
    warnings.simplefilter("ignore")
    policy = Policy(name="orders", destinations=["sqs:orders"], keys=["main"])
    return Sealer(sender="shop", policies=[policy], keys={"main": UnsafeLocalKeys.ephemeral()})


# -- what it costs in all ----------------------------------------------------------------------------------------------


def measure(rounds=ROUNDS):
    """Return the ratios, each the median of *rounds* in which bare and protected calls took turns."""
    bare, ours = _calls(_client()), _calls(_client(_sealer()))
    figures = {}
    for name in bare:
        ratios = [_microseconds(bare[name]) / _microseconds(ours[name]) for _ in range(rounds + 1)]
        figures[f"sqs.{name}"] = round(
            statistics.median(ratios[1:]), 3
        )  # the first fetches keys and fills caches
    return figures


# -- where it goes -----------------------------------------------------------------------------------------------------


@contextmanager
def _without(part, text):
    """Have one part of the work cost nothing: answers stay right, for all messages are one."""
    stand_ins = []
    if part in {"sealer", "all"}:
        stand_ins += [
            (_sending, "seal_texts", lambda _, texts: [text] * len(texts)),
            (_sorting, "open_texts", lambda _, texts: [BODY] * len(texts)),
        ]
    if part in {"md5", "all"}:
        stand_ins += [
            (module, "text_md5s", lambda texts: ["0"] * len(texts)) for module in (_sending, _sorting)
        ]
        stand_ins += [(sys.modules[__name__], "_md5", lambda _: "0")]
    with ExitStack() as stack:
        for target, name, new in stand_ins:
            stack.enter_context(mock.patch.object(target, name, new))
        yield


def _share(times, more, less):
    """Return by how much *more* takes longer than *less*, in hundredths of a bare call: median of rounds, each of one speed."""
    pairs = zip(times[more], times[less], times["bare"], strict=True)
    return round(100 * statistics.median((a - b) / bare for a, b, bare in pairs), 1)


def profile(rounds=ROUNDS):
    """Return for each call what each part of ours adds where it stands, in hundredths of a bare call.

    Measured by leaving it out: a loop over one part alone finds all of it in the processor's caches, and shows half of what it costs.
    *larger* is what a bare client pays for bodies as long as sealed ones; *sealer* has base64 in it; *rest* is our Python.
    """
    sealer = _sealer()
    plain, protected, wide = _client(), _client(sealer), _client()
    text = text_of(sealer.seal(BODY.encode(), destination="sqs:orders"))
    bare, ours = _calls(plain), _calls(protected)
    with mock.patch.object(sys.modules[__name__], "BODY", text):
        larger = _calls(wide)
        larger["send"] = lambda body=BODY: wide.send_message(QueueUrl=URL, MessageBody=body)
    figures = {}
    for name in bare:
        times = {part: [] for part in ("bare", "larger", "ours", "sealer", "md5", "all")}
        for _ in range(rounds):
            times["bare"].append(_microseconds(bare[name]))
            times["larger"].append(_microseconds(larger[name]))
            times["ours"].append(_microseconds(ours[name]))
            for part in ("sealer", "md5", "all"):
                with _without(part, text):
                    times[part].append(_microseconds(ours[name]))
        figures[name] = {
            "larger": _share(times, "larger", "bare"),
            **{part: _share(times, "ours", part) for part in ("sealer", "md5")},
            "rest": _share(times, "all", "larger"),
        }
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    ratios, parts = measure(arguments.rounds), profile(arguments.rounds)
    if arguments.json:
        print(
            json.dumps(
                {
                    "accelerator": native() is not None,
                    "body_bytes": len(BODY),
                    **ratios,
                    "percent_of_bare": parts,
                },
                indent=2,
            )
        )
        return
    for name, ratio in ratios.items():
        print(f"{name:12} {ratio:.2f} of the bare client's calls")
    for name, figures in parts.items():
        print(
            f"{name:12} "
            + ", ".join(f"{part} {figure}" for part, figure in figures.items())
            + " % of a bare call"
        )


if __name__ == "__main__":
    main()
