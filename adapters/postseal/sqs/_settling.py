"""Settles what is not handed on: refused messages by their policy, withheld ones by giving them back.

Nothing here raises: whatever fails leaves the message on its queue, where it comes back after its visibility timeout.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from botocore.exceptions import ClientError

from postseal.core import Refused
from postseal.core.policy import Policy
from postseal.sqs._message import is_fifo, text_md5
from postseal.sqs._sending import AsItCame

__all__ = ["VERDICT_ATTRIBUTE", "Received", "Settling", "Turned"]

_log: Final = logging.getLogger("postseal.sqs")

VERDICT_ATTRIBUTE: Final = "postseal-verdict"
"""Names, on a copy in the quarantine, why the message was refused."""
_MAX_ATTRIBUTES: Final = 10
"""Source: Amazon SQS Developer Guide, message quotas."""
_MAX_RETRY_AFTER: Final = 900
"""Seconds that a withheld message is away at most, however often it came before."""
_PAUSE: Final = (1.0, 20.0)
"""Seconds that a receive pauses which could hand on nothing, at least and at most; the most is that of a long poll."""


class Received(NamedTuple):
    """A message that came: what settling needs of it."""

    message: Mapping[str, Any]
    handle: str
    message_id: str
    group: str | None
    receive_count: int
    """How often it came, this time included."""

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Received:
        """Read what SQS says of *message*."""
        system = message.get("Attributes") or {}
        count = str(system.get("ApproximateReceiveCount", ""))
        return cls(
            message,
            message.get("ReceiptHandle", ""),
            message.get("MessageId", ""),
            system.get("MessageGroupId"),
            int(count) if count.isdecimal() else 1,
        )

    @property
    def coordinates(self) -> dict[str, str | int]:
        """Where SQS has it, for the audit event."""
        return {"message_id": self.message_id, "receive_count": self.receive_count}


class Turned(NamedTuple):
    """A message that was refused, and why."""

    received: Received
    refusal: Refused
    stays: bool = False
    """Whether it is left on its queue whatever the policy says."""


class Settling:
    """Settles messages with calls of the client's own, of which none passes the adapter's handlers again.

    Args:
        client: The protected client.
        queue_urls: URLs of quarantine queues by destination, where GetQueueUrl should not be asked.
        retry_after: Seconds until a withheld message comes again, the first time; twice as long each further time.
        sleep: Pauses for some seconds.
    """

    def __init__(
        self,
        client: Any,
        *,
        queue_urls: Mapping[str, str],
        retry_after: int,
        sleep: Callable[[float], None],
    ) -> None:
        self._client = client
        self._queue_urls = {destination: AsItCame(url) for destination, url in queue_urls.items()}
        self._retry_after = retry_after
        self._sleep = sleep

    def settle(self, queue_url: str, destination: str, policy: Policy, refused: Sequence[Turned]) -> None:
        """Settle *refused* messages as their policy says."""
        going: list[Turned] = []
        if policy.on_refused == "discard":
            going = [turned for turned in refused if not turned.stays]
        elif policy.on_refused == "quarantine" and policy.quarantine != destination:
            going = [turned for turned in refused if not turned.stays and self._copy(turned, policy)]
        gone = self._delete(queue_url, [turned.received for turned in going]) if going else 0
        if gone:
            _log.warning("%d refused at %s: %s", gone, destination, _DONE[policy.on_refused])
        if left := len(refused) - gone:
            _log.warning("%d refused at %s: left there for its redrive policy", left, destination)

    def give_back(self, queue_url: str, destination: str, withheld: Sequence[Received]) -> None:
        """Have *withheld* messages come again after a while."""
        entries = [
            {
                "Id": str(index),
                "ReceiptHandle": one.handle,
                "VisibilityTimeout": self._away(one.receive_count),
            }
            for index, one in enumerate(withheld)
        ]
        self._do(
            "giving back",
            lambda: self._client.change_message_visibility_batch(QueueUrl=queue_url, Entries=entries),
        )
        _log.warning("%d withheld at %s: the key service did not answer", len(withheld), destination)

    def pause(self, wait: float) -> None:
        """Pause as a long poll of *wait* seconds would, so that a loop around a receive does not run hot."""
        least, most = _PAUSE
        self._sleep(min(max(wait, least), most))

    def _away(self, receive_count: int) -> int:
        doublings = min(max(receive_count - 1, 0), 16)
        return min(self._retry_after << doublings, max(_MAX_RETRY_AFTER, self._retry_after))

    # -- the quarantine --------------------------------------------------------------------------------------------

    def _copy(self, turned: Turned, policy: Policy) -> bool:
        """Copy a refused message to the quarantine, and tell whether the copy is confirmed."""
        text = turned.received.message.get("Body", "")
        answer = self._do(
            "quarantining", lambda: self._send(self._url_of(policy.quarantine or ""), text, turned)
        )
        return bool(answer) and answer.get("MD5OfMessageBody") == text_md5(text)

    def _send(self, queue_url: AsItCame, text: str, turned: Turned) -> Any:
        received = turned.received
        attributes = dict(received.message.get("MessageAttributes") or {})
        if VERDICT_ATTRIBUTE in attributes or len(attributes) < _MAX_ATTRIBUTES:
            attributes[VERDICT_ATTRIBUTE] = {
                "DataType": "String",
                "StringValue": turned.refusal.verdict.value,
            }
        fifo = {}
        if is_fifo(queue_url):
            # The id of the message: a copy made twice is one.
            fifo = {
                "MessageGroupId": received.group or "refused",
                "MessageDeduplicationId": received.message_id,
            }
        return self._client.send_message(
            QueueUrl=queue_url, MessageBody=text, MessageAttributes=attributes, **fifo
        )

    def _url_of(self, destination: str) -> AsItCame:
        url = self._queue_urls.get(destination)
        if url is None:
            name = destination.partition(":")[2]
            url = AsItCame(self._client.get_queue_url(QueueName=name)["QueueUrl"])
            self._queue_urls[destination] = url
        return url

    # -- calls -----------------------------------------------------------------------------------------------------

    def _delete(self, queue_url: str, done: Iterable[Received]) -> int:
        """Delete messages, and return how many SQS says are gone."""
        entries = [{"Id": str(index), "ReceiptHandle": one.handle} for index, one in enumerate(done)]
        answer = self._do(
            "deleting", lambda: self._client.delete_message_batch(QueueUrl=queue_url, Entries=entries)
        )
        return len(answer.get("Successful", ())) if answer else 0

    @staticmethod
    def _do(what: str, call: Callable[[], Any]) -> Any:
        """Make a call; where it fails, say so and return None. The text of an error may quote a message, so only its kind is logged."""
        try:
            answer = call()
        except ClientError as error:
            _log.warning("%s failed: %s", what, error.response.get("Error", {}).get("Code"))
            return None
        except Exception as error:  # noqa: BLE001 - nothing that fails here may cost the messages beside it
            _log.warning("%s failed: %s", what, type(error).__name__)
            return None
        for failed in answer.get("Failed", ()):
            _log.warning("%s failed: %s", what, failed.get("Code"))
        return answer


_DONE: Final = {"discard": "deleted", "quarantine": "copied to the quarantine and deleted"}
