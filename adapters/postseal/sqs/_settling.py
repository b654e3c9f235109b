"""Settles what is not handed on: refused messages by their policy, withheld ones by giving them back.

Nothing here raises: whatever fails leaves the message on its queue, where it comes back after its visibility timeout. Nothing here calls,
either: each step is a `Request` or a `Pause`, and `carry_out` or its twin of asyncio does it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from botocore.exceptions import ClientError

from postseal.core.audit import QuietLog
from postseal.core.policy import Policy
from postseal.sqs._message import is_fifo
from postseal.sqs._sending import AsItCame
from postseal.sqs._sorting import Received, Turned
from postseal.sqs._text import text_md5

__all__ = ["VERDICT_ATTRIBUTE", "Pause", "Request", "Settling", "Steps", "carry_out", "carry_out_async"]

_log: Final = logging.getLogger("postseal.sqs")

VERDICT_ATTRIBUTE: Final = "postseal-verdict"
"""Names, on a copy in the quarantine, why the message was refused."""
_DESTINATION_ATTRIBUTE: Final = "postseal-destination"
"""Names, likewise, where it lay."""
_MAX_ATTRIBUTES: Final = 10
"""Source: Amazon SQS Developer Guide, message quotas."""
_MAX_RETRY_AFTER: Final = 900
"""Seconds that a withheld message is away at most, however often it came before."""
_PAUSE: Final = (1.0, 20.0)
"""Seconds that a receive pauses which could hand on nothing, at least and at most; the most is that of a long poll."""


class Request(NamedTuple):
    """A call that the client is to make."""

    what: str
    """What it is for, in a word for the log."""
    method: str
    params: dict[str, Any]


class Pause(NamedTuple):
    """Some time in which nothing is to be done."""

    seconds: float


_T = TypeVar("_T")
Steps: TypeAlias = Generator[Request | Pause, Any, _T]
"""What is to be done, step by step. Each `Request` is answered with its response, or with None where it failed."""


class Settling:
    """Says what becomes of messages that are not handed on. None of its calls passes the adapter's handlers again.

    Args:
        queue_urls: URLs of quarantine queues by destination, where GetQueueUrl should not be asked.
        come_again_after: Seconds until a withheld message comes again, the first time; twice as long each further time.
    """

    def __init__(self, *, queue_urls: Mapping[str, str], come_again_after: int) -> None:
        self._queue_urls = {destination: AsItCame(url) for destination, url in queue_urls.items()}
        self._come_again_after = come_again_after
        self._quiet = QuietLog(_log)

    def settle(
        self, queue_url: str, destination: str, policy: Policy, refused: Sequence[Turned]
    ) -> Steps[None]:
        """Settle *refused* messages as their policy says."""
        going = yield from self.take(destination, policy, refused)
        gone = (yield from _delete(queue_url, going)) if going else 0
        if gone:
            self._quiet.warning("%d refused at %s: deleted, as their policy says", gone, destination)
        if left := len(refused) - gone:
            self._quiet.warning("%d refused at %s: left there for its redrive policy", left, destination)

    def take(self, destination: str, policy: Policy, refused: Sequence[Turned]) -> Steps[list[Received]]:
        """Do with *refused* messages what comes before their deletion, and return those that may be deleted."""
        going: list[Received] = []
        for turned in refused:
            if turned.stays:
                continue
            outcome = policy.outcome(turned.refusal.verdict)
            if outcome == "discard" or (
                outcome == "quarantine"
                and policy.quarantine != destination
                and (yield from self._copy(turned, policy))
            ):
                going.append(turned.received)
        return going

    def give_back(self, queue_url: str, destination: str, withheld: Sequence[Received]) -> Steps[None]:
        """Have *withheld* messages come again after a while."""
        entries = [
            {
                "Id": str(index),
                "ReceiptHandle": one.handle,
                "VisibilityTimeout": self._away(one.receive_count),
            }
            for index, one in enumerate(withheld)
        ]
        params = {"QueueUrl": queue_url, "Entries": entries}
        yield Request("giving back", "change_message_visibility_batch", params)
        _log.warning("%d withheld at %s: the key service did not answer", len(withheld), destination)

    @staticmethod
    def pause(wait: float) -> Steps[None]:
        """Pause as a long poll of *wait* seconds would, so that a loop around a receive does not run hot."""
        least, most = _PAUSE
        yield Pause(min(max(wait, least), most))

    def _away(self, receive_count: int | None) -> int:
        doublings = min(max((receive_count or 1) - 1, 0), 16)
        return min(self._come_again_after << doublings, max(_MAX_RETRY_AFTER, self._come_again_after))

    # -- the quarantine --------------------------------------------------------------------------------------------

    def _copy(self, turned: Turned, policy: Policy) -> Steps[bool]:
        """Copy a refused message to the quarantine, and tell whether the copy is confirmed."""
        url = yield from self._url_of(policy.quarantine or "")
        if url is None:
            return False
        received = turned.received
        attributes = dict(received.message.get("MessageAttributes") or {})
        refusal = turned.refusal
        ours = {VERDICT_ATTRIBUTE: refusal.verdict.value, _DESTINATION_ATTRIBUTE: refusal.destination}
        for name, value in ours.items():
            if name in attributes or len(attributes) < _MAX_ATTRIBUTES:
                attributes[name] = {"DataType": "String", "StringValue": value}
        params = {"QueueUrl": url, "MessageBody": received.text, "MessageAttributes": attributes}
        if is_fifo(url):
            # The id of the message: a copy made twice is one.
            params |= {
                "MessageGroupId": received.group or "refused",
                "MessageDeduplicationId": received.message_id,
            }
        answer = yield Request("quarantining", "send_message", params)
        return bool(answer) and answer.get("MD5OfMessageBody") == text_md5(received.text)

    def _url_of(self, destination: str) -> Steps[AsItCame | None]:
        url = self._queue_urls.get(destination)
        if url is None:
            name = destination.partition(":")[2]
            answer = yield Request("quarantining", "get_queue_url", {"QueueName": name})
            if not answer or not isinstance(answer.get("QueueUrl"), str):
                return None
            url = self._queue_urls[destination] = AsItCame(answer["QueueUrl"])
        return url


def _delete(queue_url: str, done: Iterable[Received]) -> Steps[int]:
    """Delete messages, and return how many SQS says are gone."""
    entries = [{"Id": str(index), "ReceiptHandle": one.handle} for index, one in enumerate(done)]
    answer = yield Request("deleting", "delete_message_batch", {"QueueUrl": queue_url, "Entries": entries})
    return len(answer.get("Successful", ())) if answer else 0


# -- doing it ----------------------------------------------------------------------------------------------------------


def carry_out(steps: Steps[_T], client: Any, sleep: Callable[[float], object]) -> _T:
    """Do *steps* with calls of *client*, and return what they come to. What a call raises costs its answer alone."""
    answer = None
    try:
        while True:
            step = steps.send(answer)
            answer = None
            if isinstance(step, Pause):
                sleep(step.seconds)
                continue
            try:
                answer = getattr(client, step.method)(**step.params)
            except Exception as error:  # noqa: BLE001 - nothing that fails here may cost the messages beside it
                _tell_failure(step.what, error)
            else:
                _tell_failed(step.what, answer)
    except StopIteration as end:
        result: _T = end.value
        return result


async def carry_out_async(steps: Steps[_T], client: Any, sleep: Callable[[float], object]) -> _T:
    """Do *steps* like `carry_out`, awaiting calls and pauses. A task that is cancelled leaves the rest undone: nothing is lost by it."""
    answer = None
    try:
        while True:
            step = steps.send(answer)
            answer = None
            if isinstance(step, Pause):
                waiting = sleep(step.seconds)
                if inspect.isawaitable(waiting):
                    await waiting
                continue
            try:
                answer = await getattr(client, step.method)(**step.params)
            except Exception as error:  # noqa: BLE001 - as above
                _tell_failure(step.what, error)
            else:
                _tell_failed(step.what, answer)
    except StopIteration as end:
        result: _T = end.value
        return result


def _tell_failure(what: str, error: Exception) -> None:
    """Log only the kind of *error*: its text may quote a message."""
    kind = (
        error.response.get("Error", {}).get("Code")
        if isinstance(error, ClientError)
        else type(error).__name__
    )
    _log.warning("%s failed: %s", what, kind)


def _tell_failed(what: str, answer: Mapping[str, Any]) -> None:
    for failed in answer.get("Failed", ()):
        _log.warning("%s failed: %s", what, failed.get("Code"))
