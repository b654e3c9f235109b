"""Hangs the handlers into the event system of one client, and takes them out again.

botocore calls, for one event, the handlers of the whole name before those of its parts (``before-call.sqs.SendMessage``,
``before-call.sqs``, ``before-call``). So what has to come last is registered last on the shortest name, and what has to come first, first
on the whole one. Handlers of ``provide-client-params`` cannot be used: of what they return only the first counts.

Source: botocore 1.44, hooks.py and client.py (``_make_api_call``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from botocore.client import BaseClient

from postseal.core import ConfigError, Sealer
from postseal.sqs._message import destination_of
from postseal.sqs._receiving import Receiving
from postseal.sqs._sending import Sending
from postseal.sqs._settling import Settling

__all__ = ["Hooks", "Options", "client_of", "hooks_of"]

_PLACE: Final = "_postseal"
"""The attribute of a client's emitter that holds its hooks: who shares the emitter shares them."""
_MAX_AWAY: Final = 43200
"""Seconds. Source: SQS API, ChangeMessageVisibility, VisibilityTimeout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a client is protected, besides by its sealer. Described at `postseal.sqs.protect`."""

    max_bytes: int
    quarantine: Mapping[str, str] = field(default_factory=dict)
    retry_after: int
    sleep: Callable[[float], None]

    def __post_init__(self) -> None:
        _whole("max_bytes", self.max_bytes, 1024, 2**31)
        _whole("retry_after", self.retry_after, 0, _MAX_AWAY)
        for queue_url in self.quarantine.values():
            destination_of(queue_url)


class _Model(Protocol):
    name: str


class Hooks:
    """The handlers of one client.

    Args:
        client: An SQS client of botocore.
        sealer: Seals and opens.
        options: The rest.

    Raises:
        ConfigError: A policy has a quarantine that is no queue.
    """

    def __init__(self, client: Any, sealer: Sealer, options: Options) -> None:
        _check_quarantines(sealer, options.quarantine)
        self.sealer = sealer
        self.options = options
        self._events = client.meta.events
        sending = Sending(sealer, max_bytes=options.max_bytes)
        settling = Settling(
            client, queue_urls=options.quarantine, retry_after=options.retry_after, sleep=options.sleep
        )
        receiving = Receiving(sealer, settling)
        self._build = {
            "SendMessage": sending.seal,
            "SendMessageBatch": sending.seal_batch,
            "ReceiveMessage": receiving.ask,
        }
        self._sending = sending
        self._receiving = receiving

    def __repr__(self) -> str:
        return "<postseal.sqs hooks>"  # botocore logs it with each event

    def attach(self) -> None:
        """Register the handlers."""
        self._events.register_last("before-parameter-build", self._on_build)
        self._events.register_last("before-call", self._on_call)
        self._events.register_first("after-call.sqs.SendMessage", self._on_sent)
        self._events.register_first("after-call.sqs.SendMessageBatch", self._on_batch_sent)
        self._events.register_first("after-call.sqs.ReceiveMessage", self._on_received)
        setattr(self._events, _PLACE, self)

    def detach(self) -> None:
        """Take the handlers out again."""
        self._events.unregister("before-parameter-build", self._on_build)
        self._events.unregister("before-call", self._on_call)
        self._events.unregister("after-call.sqs.SendMessage", self._on_sent)
        self._events.unregister("after-call.sqs.SendMessageBatch", self._on_batch_sent)
        self._events.unregister("after-call.sqs.ReceiveMessage", self._on_received)
        delattr(self._events, _PLACE)

    def _on_build(self, params: dict[str, Any], model: _Model, context: dict[str, Any], **_: Any) -> None:
        build = self._build.get(model.name)
        if build is not None:
            build(params, context)

    def _on_call(self, params: dict[str, Any], model: _Model, context: dict[str, Any], **_: Any) -> None:
        if model.name in {"SendMessage", "SendMessageBatch"}:
            self._sending.guard(params, context)

    def _on_sent(self, parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        self._sending.check(parsed, context)

    def _on_batch_sent(self, parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        self._sending.check_batch(parsed, context)

    def _on_received(self, parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        self._receiving.receive(parsed, context)


def hooks_of(client: Any) -> Hooks | None:
    """Return the hooks of *client*, if it is protected."""
    hooks = getattr(client.meta.events, _PLACE, None)
    return hooks if isinstance(hooks, Hooks) else None


def client_of(target: Any) -> Any:
    """Return the client that *target* is or works with.

    Raises:
        ConfigError: It is none that can be protected.
    """
    client = target
    if not isinstance(client, BaseClient):
        client = getattr(getattr(target, "meta", None), "client", None)  # a resource of boto3
    if not isinstance(client, BaseClient):
        raise ConfigError(f"protect takes an SQS client or resource of boto3, not {type(target).__name__}")
    service = client.meta.service_model.service_name
    if service != "sqs":
        raise ConfigError(f"protect takes an SQS client or resource, not one of {service}")
    # Both are private, so both are asked for carefully; botocore's own client has neither as a coroutine nor at all.
    if inspect.iscoroutinefunction(getattr(client, "_make_api_call", None)):
        raise ConfigError(
            "this client is an asyncio one (aiobotocore); its receives could not be opened without blocking its loop"
        )
    if hasattr(type(client), "large_payload_support"):
        raise ConfigError(
            "this client was made by amazon-sqs-extended-client, which sits above our hooks and would put clear bodies into S3. Make the "
            "client before that is imported, or do without it"
        )
    return client


def _check_quarantines(sealer: Sealer, queue_urls: Mapping[str, str]) -> None:
    for policy in sealer.policies:
        ours = any(pattern.startswith("sqs:") for pattern in (*policy.destinations, *policy.accept_from))
        quarantine = policy.quarantine
        if not ours or policy.on_refused != "quarantine" or quarantine is None or quarantine in queue_urls:
            continue
        if not quarantine.startswith("sqs:"):
            raise ConfigError(
                f"policy {policy.name!r}: quarantine is {quarantine!r}, which is no queue of SQS; name one as 'sqs:...', or give its URL "
                f"to protect: quarantine={{{quarantine!r}: 'https://...'}}"
            )
        destination_of(quarantine.partition(":")[2])


def _whole(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{name} must be a whole number from {least:,} to {most:,}: {value!r}")
