"""A namespace: queues, topics and their subscriptions by name; who gets what is sent. No I/O."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from .deadlines import Deadlines
from .entries import Content, Entry, Options
from .errors import EntityNotFound, NotAllowed
from .queue import Queue
from .rules import Filter, everything

_DEAD = "/$deadletterqueue"
_SUBSCRIPTIONS = "/subscriptions/"
# Source: Service Bus quotas: a message is forwarded at most four times.
_HOPS = 4


@dataclass(slots=True, eq=False)
class Subscription:
    """A queue that takes from a topic what one of its rules lets through."""

    queue: Queue
    rules: dict[str, Filter] = field(default_factory=lambda: {"$Default": everything})


@dataclass(slots=True, eq=False)
class Topic:
    """What is sent to it goes to each subscription that wants it."""

    name: str
    options: Options
    subscriptions: dict[str, Subscription] = field(default_factory=dict)


class Broker:
    """All entities of a namespace.

    Args:
        clock: Gives the time in seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._deadlines = Deadlines(clock)
        # By lower-case path; each queue's and subscription's dead letters are here, too.
        self._queues: dict[str, Queue] = {}
        self._topics: dict[str, Topic] = {}
        self._woken: set[Queue] = set()

    # Entities.

    def create_queue(self, name: str, options: Options | None = None) -> Queue:
        """Make a queue and its dead letters.

        Raises:
            NotAllowed: The name is taken.
        """
        self._check_free(name)
        return self._make(name, options or Options())

    def create_topic(self, name: str, options: Options | None = None) -> Topic:
        """Make a topic. Only sizes and duplicates concern it; the rest is for its subscriptions.

        Raises:
            NotAllowed: The name is taken.
        """
        self._check_free(name)
        topic = Topic(name, options or Options())
        self._topics[name.lower()] = topic
        return topic

    def create_subscription(
        self,
        topic: str,
        name: str,
        options: Options | None = None,
        rules: dict[str, Filter] | None = None,
    ) -> Subscription:
        """Make a subscription and its dead letters; without rules it takes everything.

        Raises:
            EntityNotFound: There is no such topic.
            NotAllowed: The name is taken.
        """
        parent = self.topic(topic)
        if name.lower() in parent.subscriptions:
            raise NotAllowed(f"subscription {name} of {topic} exists")
        subscription = Subscription(self._make(f"{parent.name}/Subscriptions/{name}", options or Options()))
        if rules is not None:
            subscription.rules = dict(rules)
        parent.subscriptions[name.lower()] = subscription
        return subscription

    def delete(self, name: str) -> None:
        """Remove an entity and all that is below it.

        Raises:
            EntityNotFound: There is none of that name.
        """
        low = name.lower()
        gone = {path for path in self._queues if path == low or path.startswith(low + "/")}
        if not gone and low not in self._topics:
            raise EntityNotFound(f"no entity {name}")
        for path in gone:
            del self._queues[path]
        self._topics.pop(low, None)
        for topic in self._topics.values():
            topic.subscriptions = {
                key: kept for key, kept in topic.subscriptions.items() if kept.queue.path.lower() not in gone
            }

    def queue(self, path: str) -> Queue:
        """Find what can be received from: a queue, a subscription, or dead letters.

        Raises:
            EntityNotFound: There is none of that name.
            NotAllowed: It is a topic.
        """
        found = self._queues.get(path.lower())
        if found is None:
            if path.lower() in self._topics:
                raise NotAllowed(f"{path} is a topic: receive from a subscription")
            raise EntityNotFound(f"the messaging entity {path} could not be found")
        return found

    def topic(self, name: str) -> Topic:
        """Find a topic.

        Raises:
            EntityNotFound: There is none of that name.
        """
        found = self._topics.get(name.lower())
        if found is None:
            raise EntityNotFound(f"the messaging entity {name} could not be found")
        return found

    def subscription(self, path: str) -> Subscription:
        """Find a subscription by its path, `topic/Subscriptions/name`.

        Raises:
            EntityNotFound: There is none.
        """
        topic, _, name = path.lower().partition(_SUBSCRIPTIONS)
        found = self.topic(topic).subscriptions.get(name)
        if found is None:
            raise EntityNotFound(f"the messaging entity {path} could not be found")
        return found

    def largest(self, path: str) -> int:
        """Tell how many bytes a message may have that is sent to *path*.

        Raises:
            EntityNotFound: There is nothing of that name.
            NotAllowed: Nothing can be sent to it.
        """
        low = path.lower()
        if low in self._topics:
            return self._topics[low].options.max_message_size
        if low.endswith(_DEAD) or _SUBSCRIPTIONS in low:
            raise NotAllowed(f"nothing can be sent to {path}")
        return self.queue(path).options.max_message_size

    def names(self) -> Iterator[str]:
        """List all paths."""
        yield from (queue.path for queue in self._queues.values())
        yield from (topic.name for topic in self._topics.values())

    # Messages.

    def send(self, path: str, content: Content, *, at: float | None = None) -> int:
        """Enqueue a message wherever it must go, now or *at* a later time; give its sequence number.

        Raises:
            EntityNotFound: There is nothing of that name.
            TooLarge: It is larger than the entity takes.
            NotAllowed: Nothing can be sent there, or not without a session.
        """
        self.largest(path)
        return self._send(path, content, at=at, hops=_HOPS)

    def cancel(self, path: str, sequences: list[int]) -> None:
        """Drop scheduled messages, of a queue or of all subscriptions of a topic.

        Raises:
            MessageNotFound: One of them is not scheduled.
        """
        topic = self._topics.get(path.lower())
        queues = [one.queue for one in topic.subscriptions.values()] if topic else [self.queue(path)]
        for queue in queues:
            queue.cancel(sequences)

    def take_woken(self) -> set[Queue]:
        """Give the queues that may have something new to hand out since the last call."""
        woken, self._woken = self._woken, set()
        return woken

    def tick(self) -> float:
        """Do what is due, and tell when the next is, in seconds since 1970."""
        return self._deadlines.tick()

    def _send(
        self, path: str, content: Content, *, at: float | None = None, entry: Entry | None = None, hops: int
    ) -> int:
        topic = self._topics.get(path.lower())
        if topic is None:
            return self._put(self.queue(path), content, at=at, entry=entry, hops=hops)
        last = 0
        for subscription in topic.subscriptions.values():
            if any(rule(content) for rule in subscription.rules.values()):
                last = self._put(subscription.queue, content, at=at, entry=entry, hops=hops)
        return last

    def _put(
        self, queue: Queue, content: Content, *, at: float | None, entry: Entry | None, hops: int
    ) -> int:
        onward = queue.options.forward_to
        if not onward or at is not None:
            return queue.put(content, at=at, entry=entry)
        if hops == 0:
            return self._queues[queue.path.lower() + _DEAD].put(content, entry=entry)
        return self._send(onward, content, entry=entry, hops=hops - 1)

    def _make(self, path: str, options: Options) -> Queue:
        dead = Queue(
            f"{path}/$DeadLetterQueue",
            Options(lock_duration=options.lock_duration, max_message_size=2**40),
            deadlines=self._deadlines,
            ready=self._woken_by,
        )

        def dead_lettered(entry: Entry, reason: str, description: str) -> None:
            stamps = {"DeadLetterReason": reason, "DeadLetterErrorDescription": description}
            buried = replace(
                entry, stamps={**entry.stamps, **{key: value for key, value in stamps.items() if value}}
            )
            onward = options.forward_dead_lettered_messages_to
            if onward:
                buried.source = path
                self._send(onward, entry.content, entry=buried, hops=_HOPS)
            else:
                dead.put(entry.content, entry=buried)

        queue = Queue(
            path, options, deadlines=self._deadlines, ready=self._woken_by, dead_lettered=dead_lettered
        )
        self._queues[path.lower()] = queue
        self._queues[path.lower() + _DEAD] = dead
        return queue

    def _woken_by(self, queue: Queue) -> None:
        self._woken.add(queue)

    def _check_free(self, name: str) -> None:
        if name.lower() in self._queues or name.lower() in self._topics:
            raise NotAllowed(f"{name} exists")
