"""Hangs the sealing classes into one client: into what it makes from now on, and what it made before."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Final
from weakref import WeakSet

from azure.servicebus import ServiceBusClient, ServiceBusReceiveMode

from postseal.core import ConfigError, Sealer
from postseal.servicebus import _sync
from postseal.servicebus._flow import Below
from postseal.servicebus._in_force import InForce
from postseal.servicebus._message import bound_by, destination_of, is_sub_queue, reader_of
from postseal.servicebus._opening import Opening
from postseal.servicebus._receiving import Receiving, Waiting
from postseal.servicebus._sdk import deletes, handlers_of, speaks_pyamqp
from postseal.servicebus._sending import Sending
from postseal.servicebus._session import State
from postseal.servicebus._settling import Place, Settling
from postseal.servicebus._twin import Twin

__all__ = ["Hooks", "SealedClient", "hooks_of", "protect_client", "unprotect_client"]

_PLACE: Final = "_postseal"
"""The attribute of a client, sender, receiver, session or batch that holds what protects it."""
_GETTERS: Final = (
    "get_queue_sender",
    "get_topic_sender",
    "get_queue_receiver",
    "get_subscription_receiver",
)
_MOST_SECONDS: Final = 86400


class Hooks:
    """What protects one client.

    Args:
        client: A `ServiceBusClient`, blocking or of asyncio.
        sealer: Seals and opens.
        waiting: How receivers wait for the key service.

    Raises:
        ConfigError: The client or the sealer cannot be used so.
    """

    def __init__(self, client: Any, sealer: Sealer, waiting: Waiting) -> None:
        if not isinstance(sealer, Sealer):
            raise ConfigError(f"protect takes a Sealer, not {type(sealer).__name__}")
        self._twin = twin_of(client)
        _check_seconds(waiting)
        _check_policies(sealer)
        self.sealer = sealer
        self.waiting = waiting
        self._client = client
        self._originals: dict[str, Callable[..., Any]] = {}
        self._taken: WeakSet[Any] = WeakSet()

    def attach(self) -> None:
        """Protect what the client made and will make.

        Raises:
            ConfigError: It has a sender or receiver of which no policy speaks; then nothing is protected.
        """
        present = handlers_of(self._client)
        for handler in present:
            self._check(handler)
        for name in _GETTERS:
            original = self._originals[name] = getattr(self._client, name)
            setattr(self._client, name, self._taking(original))
        setattr(self._client, _PLACE, self)
        for handler in present:
            self._take(handler)

    def detach(self) -> None:
        """Undo `attach`. Messages that wait in a receiver come again when their locks end.

        Raises:
            ConfigError: A receiver has some that cannot, because they were received and deleted; nothing was undone.
        """
        for handler in self._taken:
            receiving = getattr(handler, _PLACE)
            if isinstance(receiving, Receiving) and receiving.has_what_nobody_else_has:
                raise ConfigError(
                    f"the receiver of {_path_of(handler)} has messages that were received and deleted and are not handed on yet; "
                    "close it first"
                )
        for name in self._originals:
            delattr(self._client, name)
        delattr(self._client, _PLACE)
        for handler in list(self._taken):
            for protected in (handler, getattr(handler, "session", None)):
                if hasattr(protected, _PLACE):
                    protected.__class__ = type(protected).__mro__[1]
                    delattr(protected, _PLACE)

    def _taking(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def getter(*args: Any, **options: Any) -> Any:
            handler = original(*args, **options)
            self._take(handler)
            return handler

        return getter

    # -- senders and receivers -------------------------------------------------------------------------------------

    def _check(self, handler: Any) -> None:
        """Raise what `_take` would."""
        if isinstance(handler, (self._twin.sender[0], self._twin.receiver[0])):
            bound_by(self.sealer.policy_for(destination_of(_path_of(handler))))

    def _take(self, handler: Any) -> None:
        if isinstance(handler, self._twin.sender[0]):
            self._take_sender(handler)
        elif isinstance(handler, self._twin.receiver[0]):
            self._take_receiver(handler)

    def _take_sender(self, sender: Any) -> None:
        sending = Sending(self.sealer, destination_of(_path_of(sender)), waits=self._twin.waits)
        self._put(sender, sending, self._twin.sender[1])

    def _take_receiver(self, receiver: Any) -> None:
        path = _path_of(receiver)
        destination = destination_of(path)
        session = receiver.session
        place = Place(
            entity_path=path,
            destination=destination,
            in_force=InForce(self.sealer, destination),
            deletes=deletes(receiver, ServiceBusReceiveMode.RECEIVE_AND_DELETE),
            sub_queue=is_sub_queue(path),
            in_order=session is not None,
            reader=reader_of(path),
        )
        bound_by(place.policy)
        below = Below(receiver, type(receiver))
        settling = Settling(below, place, self._originals["get_queue_sender"])
        opening = Opening(self.sealer, place, settling, waits=self._twin.waits)
        receiving = Receiving(below, opening, place, settling, self.waiting, sleep=self._twin.sleep)
        if session is not None:
            state = State(self.sealer, destination, waits=self._twin.waits)
            self._put(session, state, self._twin.session[1])
        self._put(receiver, receiving, self._twin.receiver[1])

    def _put(self, target: Any, what: object, sealed: Callable[[Any], type]) -> None:
        setattr(target, _PLACE, what)
        target.__class__ = sealed(type(target))
        if not isinstance(what, State):
            self._taken.add(target)


def _path_of(handler: Any) -> str:
    """Return the path of the queue, topic or subscription that *handler* sends to or reads from."""
    path = getattr(handler, "entity_path", None) or handler.entity_name
    return str(path)


# -- clients -----------------------------------------------------------------------------------------------------------


def twin_of(client: Any) -> Twin:
    """Return the half for *client*.

    Raises:
        ConfigError: It is none that can be protected.
    """
    asyncio_module = sys.modules.get("azure.servicebus.aio")  # whoever has such a client has it loaded
    if isinstance(client, ServiceBusClient):
        twin = _sync.TWIN
    elif asyncio_module is not None and isinstance(client, asyncio_module.ServiceBusClient):
        from postseal.servicebus import _asyncio  # noqa: PLC0415 - who has no loop need not load it

        twin = _asyncio.TWIN
    else:
        raise ConfigError(f"protect takes a ServiceBusClient, not {type(client).__name__}")
    if not speaks_pyamqp(client):
        raise ConfigError(
            "this client uses uAMQP (uamqp_transport=True), which is not supported; leave that option out"
        )
    return twin


def hooks_of(client: Any) -> Hooks | None:
    """Return what protects *client*, if anything does."""
    hooks = getattr(client, _PLACE, None)
    return hooks if isinstance(hooks, Hooks) else None


def protect_client(client: Any, sealer: Sealer, waiting: Waiting) -> None:
    """Protect *client*. See `postseal.servicebus.protect`."""
    hooks, present = Hooks(client, sealer, waiting), hooks_of(client)
    if present is None:
        hooks.attach()
    elif present.sealer is not sealer:
        raise ConfigError("this client is protected with another sealer already; unprotect it first")
    elif present.waiting != waiting:
        raise ConfigError("this client is protected with other options already; unprotect it first")


def unprotect_client(client: Any) -> None:
    """Undo it."""
    twin_of(client)
    if (present := hooks_of(client)) is not None:
        present.detach()


class SealedClient:
    """What makes a subclass of a client one that is protected from the start; stands before the client among the bases."""

    def __init__(
        self,
        *args: Any,
        sealer: Sealer,
        retry_after: float = 1.0,
        give_back_after: float = 300.0,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        protect_client(self, sealer, Waiting(retry_after=retry_after, give_back_after=give_back_after))


def _check_policies(sealer: Sealer) -> None:
    for policy in sealer.policies:
        if not any(
            pattern.startswith("servicebus:") for pattern in (*policy.destinations, *policy.accept_from)
        ):
            continue
        quarantine = policy.quarantine or ""
        if policy.on_refused == "quarantine" and not quarantine.startswith("servicebus:"):
            raise ConfigError(
                f"policy {policy.name!r}: quarantine is {quarantine!r}, which is no queue or topic of Service Bus; name one as "
                "'servicebus:...'"
            )


def _check_seconds(waiting: Waiting) -> None:
    for name in ("retry_after", "give_back_after"):
        value = getattr(waiting, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= _MOST_SECONDS:
            raise ConfigError(f"{name} must be over 0 and up to {_MOST_SECONDS:,} seconds: {value!r}")
