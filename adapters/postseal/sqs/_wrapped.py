"""Messages of a topic as a queue gets them without raw delivery: our text inside SNS's JSON. Pure.

Source: Amazon SNS Developer Guide, "Amazon SNS message and JSON formats", HTTP/HTTPS notification JSON format, which queues get, too.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from postseal.core import ConfigError
from postseal.sqs._message import topic_destination_of
from postseal.sqs._text import envelope_of

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

    @property
    def attributes(self) -> dict[str, dict[str, Any]]:
        """The attributes in it, written as those of a queue's message; one that is no such thing has no value."""
        attributes = self.content.get("MessageAttributes")
        if not isinstance(attributes, Mapping):
            return {}
        return {str(name): _read(value) for name, value in attributes.items()}

    def filled(self, clear: str, inside: Mapping[str, Mapping[str, Any]]) -> str:
        """Write the same JSON with the *clear* message, and with the attributes that came *inside* it."""
        content = {**self.content, "Message": clear}
        if inside:
            content["MessageAttributes"] = {
                **(self.content.get("MessageAttributes") or {}),
                **{name: _written(value) for name, value in inside.items()},
            }
        return json.dumps(content, ensure_ascii=False)


def _read(attribute: Any) -> dict[str, Any]:
    if not isinstance(attribute, Mapping):
        return {"DataType": "String"}
    kind, value = str(attribute.get("Type")), attribute.get("Value")
    if not isinstance(value, str):
        return {"DataType": kind}
    if not kind.startswith("Binary"):
        return {"DataType": kind, "StringValue": value}
    try:
        return {"DataType": kind, "BinaryValue": binascii.a2b_base64(value.encode(), strict_mode=True)}
    except ValueError:
        return {"DataType": kind}


def _written(attribute: Mapping[str, Any]) -> dict[str, str]:
    value = attribute.get("StringValue")
    if value is None:
        value = binascii.b2a_base64(attribute["BinaryValue"], newline=False).decode()
    return {"Type": attribute["DataType"], "Value": value}
