"""Messages of a topic as a queue gets them without raw delivery: our text inside SNS's JSON. Pure.

Source: Amazon SNS Developer Guide, "Amazon SNS message and JSON formats", HTTP/HTTPS notification JSON format, which queues get, too.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from postseal.core import ConfigError
from postseal.core.context import HeaderValue
from postseal.sqs._message import envelope_of, topic_destination_of

__all__ = ["Wrapper"]


class Wrapper(NamedTuple):
    """SNS's JSON around a sealed message."""

    content: dict[str, Any]
    envelope: bytes
    """What ``Message`` holds."""

    @classmethod
    def of(cls, text: str) -> Wrapper | None:
        """Read *text*; None where it is no notification with a sealed message."""
        if not text.startswith("{") or '"Notification"' not in text:
            return None
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            return None
        message = content.get("Message")
        if content.get("Type") != "Notification" or not isinstance(message, str):
            return None
        envelope = envelope_of(message)
        return None if envelope is None else cls(content, envelope)

    @property
    def destination(self) -> str | None:
        """The topic that it says it comes from, as a destination; None where it names none."""
        try:
            return topic_destination_of(str(self.content.get("TopicArn")))
        except ConfigError:
            return None

    def values(self, names: Collection[str]) -> dict[str, HeaderValue]:
        """Return the values of the attributes of these *names*, as `values_of` does. Source: SPEC.md 5.2."""
        attributes = self.content.get("MessageAttributes")
        if not isinstance(attributes, Mapping):
            return {}
        return {name: _value(attributes[name]) for name in names if name in attributes}

    def filled(self, clear: str) -> str:
        """Write the same JSON with the *clear* message."""
        return json.dumps({**self.content, "Message": clear}, ensure_ascii=False)


def _value(attribute: Any) -> HeaderValue:
    value = attribute.get("Value") if isinstance(attribute, Mapping) else None
    if not isinstance(value, str):
        return None
    if not str(attribute.get("Type")).startswith("Binary"):
        return value
    try:
        return binascii.a2b_base64(value.encode(), strict_mode=True)
    except ValueError:
        return None
