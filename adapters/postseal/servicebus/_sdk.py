"""The private parts of azure-servicebus that are needed, all in one place, and the check that they are still what they were.

Source: azure-servicebus 7.14.0 and 7.15.0, `_common/message.py`, `_transport/_pyamqp_transport.py`, `_pyamqp/_encode.py`, `_decode.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from azure.servicebus import ServiceBusMessage, ServiceBusMessageBatch, ServiceBusReceivedMessage
from azure.servicebus import __version__ as version
from azure.servicebus.amqp import AmqpAnnotatedMessage

from postseal.core import ConfigError

if TYPE_CHECKING:
    from azure.servicebus._pyamqp.message import Message

__all__ = [
    "check",
    "decode_sections",
    "deletes",
    "encode_sections",
    "handlers_of",
    "put_data",
    "put_raw",
    "speaks_pyamqp",
]

KNOWN: Final = "7.14.0 and 7.15.0"


def changed(what: str) -> ConfigError:
    """Say that the client library is no longer as this adapter knows it."""
    return ConfigError(
        f"azure-servicebus {version} is not as postseal.servicebus knows it from {KNOWN}: {what}. "
        "Nothing was protected; install a version that is known, or a newer postseal"
    )


try:
    from azure.servicebus._pyamqp._decode import decode_payload
    from azure.servicebus._pyamqp._encode import encode_payload
    from azure.servicebus._transport._pyamqp_transport import PyamqpTransport
except ImportError as _error:
    raise changed(f"there is no {_error.name}") from _error


def put_raw(message: Any, raw: AmqpAnnotatedMessage) -> None:
    """Have a message show *raw* from now on: its body, `str`, properties and annotations. It stays the object that the client settles."""
    message._raw_amqp_message = raw  # noqa: SLF001 - the one attribute that all of these read


def put_data(raw: AmqpAnnotatedMessage, sections: list[bytes]) -> None:
    """Put *sections* in the place of those of a body that is data."""
    raw._data_body = list(sections)  # noqa: SLF001 - it has no public way to change a body


def encode_sections(raw: AmqpAnnotatedMessage) -> bytes:
    """Encode *raw* as the client itself would. Raises what it would."""
    return bytes(encode_payload(bytearray(), PyamqpTransport.to_outgoing_amqp_message(raw)))


def decode_sections(data: bytes) -> Message:
    """Decode what `encode_sections` encoded, into what a client receives. Raises anything on other bytes."""
    return decode_payload(memoryview(data))


def handlers_of(client: Any) -> list[Any]:
    """Return the live senders and receivers that *client* made."""
    handlers = getattr(client, "_handlers", None)
    if handlers is None:
        raise changed("a client no longer knows its senders and receivers")
    return list(handlers)


def speaks_pyamqp(client: Any) -> bool:
    """Tell whether *client* uses the client library's own AMQP, not the old uAMQP."""
    return getattr(getattr(client, "_amqp_transport", None), "KIND", None) == "pyamqp"


def deletes(receiver: Any, mode: Any) -> bool:
    """Tell whether *receiver* is one of *mode*, receive-and-delete."""
    found = getattr(receiver, "_receive_mode", None)
    if found is None:
        raise changed("a receiver no longer knows its mode")
    return bool(found == mode)


def check(
    outgoing: Any = ServiceBusMessage,
    received: type = ServiceBusReceivedMessage,
    batch: Any = ServiceBusMessageBatch,
) -> None:
    """See that what this adapter does to messages does what it is for.

    Raises:
        ConfigError: It does not.
    """
    message = outgoing(b"before", content_type="text/plain")
    put_raw(message, AmqpAnnotatedMessage(data_body=b"after"))
    if b"".join(message.body) != b"after" or str(message) != "after" or message.content_type is not None:
        raise changed("a message keeps its body elsewhere")
    put_data(message.raw_amqp_message, [b"later"])
    if b"".join(message.body) != b"later" or str(message) != "later":
        raise changed("a message keeps its data elsewhere")
    for name in ("raw_amqp_message", "body", "body_type", "content_type", "application_properties"):
        if getattr(received, name, None) is not getattr(outgoing, name):
            raise changed(f"a received message has another {name} than one to send")
    if not all(callable(getattr(batch, name, None)) for name in ("add_message", "_add")):
        raise changed("a batch takes messages otherwise")
    again = decode_sections(encode_sections(AmqpAnnotatedMessage(value_body=["a", 1])))
    if again.value != [b"a", 1]:
        raise changed("it writes values otherwise")


check()
