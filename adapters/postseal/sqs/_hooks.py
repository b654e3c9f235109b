"""Hangs the handlers into the event system of one client, and takes them out again.

botocore calls, for one event, the handlers of the whole name before those of its parts (``before-call.sqs.SendMessage``,
``before-call.sqs``, ``before-call``). So what has to come last is registered last on the shortest name, and what has to come first, first
on the whole one. Handlers of ``provide-client-params`` cannot be used: of what they return only the first counts.

Source: botocore 1.44, hooks.py and client.py (``_make_api_call``).
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from botocore.client import BaseClient

from postseal.core import ConfigError, Sealer
from postseal.core.replay import Receipt
from postseal.sqs._dialect import DIALECTS
from postseal.sqs._ledger import Deleting, Handles
from postseal.sqs._message import destination_of
from postseal.sqs._opening import aopen_each, aseal_each, open_each, seal_each
from postseal.sqs._receiving import Receiving
from postseal.sqs._sending import CONTEXT, Sending
from postseal.sqs._settling import Settling, carry_out, carry_out_async

__all__ = ["Hooks", "Options", "client_of", "hooks_for", "hooks_of"]

_PLACE: Final = "_postseal"
"""The attribute of a client's emitter that holds its hooks: who shares the emitter shares them."""
_DELETES: Final = ("DeleteMessage", "DeleteMessageBatch")
_MAX_AWAY: Final = 43200
"""Seconds. Source: SQS API, ChangeMessageVisibility, VisibilityTimeout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a client is protected, besides by its sealer. Described at `postseal.sqs.protect`."""

    max_bytes: int | None
    quarantine: Mapping[str, str] = field(default_factory=dict)
    come_again_after: int
    sleep: Callable[[float], object] | None

    def __post_init__(self) -> None:
        if self.max_bytes is not None:
            _whole("max_bytes", self.max_bytes, 1024, 2**31)
        _whole("come_again_after", self.come_again_after, 0, _MAX_AWAY)
        for queue_url in self.quarantine.values():
            destination_of(queue_url)


class _Model(Protocol):
    name: str


class Hooks:
    """The handlers of one client that has no coroutines.

    Args:
        client: An SQS or SNS client of botocore.
        sealer: Seals and opens.
        options: The rest.

    Raises:
        ConfigError: A policy has a quarantine that is no queue.
    """

    def __init__(self, client: Any, sealer: Sealer, options: Options) -> None:
        service = _service_of(client)
        dialect = DIALECTS[service]
        if service == "sqs":
            _check_quarantines(sealer, options.quarantine)
        self.sealer = sealer
        self.options = options
        self._client = client
        self._events = client.meta.events
        self._sending = Sending(sealer, dialect, max_bytes=options.max_bytes or dialect.max_bytes)
        self._receiving = Receiving(
            sealer, Settling(queue_urls=options.quarantine, come_again_after=options.come_again_after)
        )
        self._sends = {dialect.single: False, dialect.batch: True}
        """The operations that send, and whether each sends several messages."""
        self._last: dict[str, Callable[..., Any]] = {
            "before-parameter-build": self._on_build,
            "before-call": self._on_call,
        }
        self._first: dict[str, Callable[..., Any]] = {}
        self._handles: Handles | None = None
        if service == "sqs":
            self._first = {
                "after-call.sqs.SendMessage": self._on_sent,
                "after-call.sqs.SendMessageBatch": self._on_batch_sent,
                "after-call.sqs.ReceiveMessage": self._on_received,
            }
            if sealer.ledger is not None:
                self._handles = Handles()
                for operation in _DELETES:
                    self._first |= {
                        f"after-call.sqs.{operation}": self._on_deleted,
                        f"after-call-error.sqs.{operation}": self._on_deleted,
                    }

    def __repr__(self) -> str:
        return "<postseal.sqs hooks>"  # botocore logs it with each event

    def attach(self) -> None:
        """Register the handlers."""
        for event, handler in self._last.items():
            self._events.register_last(event, handler)
        for event, handler in self._first.items():
            self._events.register_first(event, handler)
        setattr(self._events, _PLACE, self)

    def detach(self) -> None:
        """Take the handlers out again."""
        for event, handler in (self._last | self._first).items():
            self._events.unregister(event, handler)
        delattr(self._events, _PLACE)

    # -- what waits for nothing ------------------------------------------------------------------------------------

    def _on_call(self, params: dict[str, Any], model: _Model, context: dict[str, Any], **_: Any) -> None:
        if model.name in self._sends:
            self._sending.guard(params, context)

    def _on_sent(self, parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        self._sending.check(parsed, context)

    def _on_batch_sent(self, parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        self._sending.check_batch(parsed, context)

    # -- what may wait for the key service, or for calls -----------------------------------------------------------

    def _on_build(self, params: dict[str, Any], model: _Model, context: dict[str, Any], **_: Any) -> Any:
        batch = self._sends.get(model.name)
        if batch is not None:
            return self._seal(params, context, batch=batch)
        if model.name == "ReceiveMessage":
            self._receiving.ask(params, context)
        elif self._handles is not None and model.name in _DELETES and not context.get("is_presign_request"):
            # Last of all, so that these are the parameters that are sent.
            deleting = self._handles.deleting(params)
            if deleting is not None:
                context[CONTEXT] = deleting
                return self._settled(list(deleting.receipts.values()))
        return None

    # -- the ledger ------------------------------------------------------------------------------------------------

    def _settled(self, receipts: list[Receipt]) -> Any:
        self.sealer.settled(*receipts)

    def _unsettled(self, receipts: list[Receipt]) -> Any:
        self.sealer.unsettled(*receipts)

    def _on_deleted(
        self,
        context: dict[str, Any],
        parsed: Mapping[str, Any] | None = None,
        http_response: Any = None,
        **_: Any,
    ) -> Any:
        """Take back what SQS did not delete: it comes again."""
        deleting = context.get(CONTEXT)
        if self._handles is None or not isinstance(deleting, Deleting):
            return None
        left = self._handles.deleted(deleting, parsed, getattr(http_response, "status_code", None))
        return self._unsettled(left) if left else None

    def _seal(self, params: dict[str, Any], context: dict[str, Any], *, batch: bool) -> Any:
        unsealed = self._sending.prepare(params, context, batch=batch)
        if unsealed is None:
            return
        seal_each(unsealed, self.sealer)
        self._sending.finish(params, context, unsealed)

    def _on_received(self, parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> Any:
        sorting = self._receiving.begin(parsed, context)
        if sorting is None:
            return
        open_each(sorting, self.sealer)
        steps = self._receiving.finish(parsed, context, sorting)
        if self._handles is not None:
            self._handles.keep(sorting.receipts)
        carry_out(steps, self._client, self.options.sleep or time.sleep)


class AsyncHooks(Hooks):
    """The handlers of one client of aiobotocore: its emitter awaits what they return."""

    async def _seal(self, params: dict[str, Any], context: dict[str, Any], *, batch: bool) -> None:
        unsealed = self._sending.prepare(params, context, batch=batch)
        if unsealed is None:
            return
        await aseal_each(unsealed, self.sealer)
        self._sending.finish(params, context, unsealed)

    async def _settled(self, receipts: list[Receipt]) -> None:
        await self.sealer.asettled(*receipts)

    async def _unsettled(self, receipts: list[Receipt]) -> None:
        await self.sealer.aunsettled(*receipts)

    async def _on_received(self, parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        sorting = self._receiving.begin(parsed, context)
        if sorting is None:
            return
        await aopen_each(sorting, self.sealer)
        steps = self._receiving.finish(parsed, context, sorting)
        if self._handles is not None:
            self._handles.keep(sorting.receipts)
        await carry_out_async(steps, self._client, self.options.sleep or asyncio.sleep)


def hooks_for(client: Any, sealer: Sealer, options: Options) -> Hooks:
    """Make the hooks that *client* needs; they are not attached."""
    # botocore's own clients have both as functions, those of aiobotocore as coroutines; libraries for tracing wrap the first, which is
    # private, in functions of their own.
    methods = (getattr(client, name, None) for name in ("close", "_make_api_call"))
    is_async = any(inspect.iscoroutinefunction(method) for method in methods)
    return (AsyncHooks if is_async else Hooks)(client, sealer, options)


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
        raise ConfigError(
            f"protect takes an SQS client or resource of boto3 or aiobotocore, or one of SNS, not {type(target).__name__}"
        )
    service = _service_of(client)
    if service not in DIALECTS:
        raise ConfigError(f"protect takes an SQS client or resource, or one of SNS, not one of {service}")
    if hasattr(type(client), "large_payload_support"):
        raise ConfigError(
            "this client was made by amazon-sqs-extended-client, which sits above our hooks and would put clear bodies into S3. Make the "
            "client before that is imported, or do without it"
        )
    return client


def _service_of(client: Any) -> str:
    return str(client.meta.service_model.service_name)


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
