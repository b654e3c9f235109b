"""Entities as Microsoft's emulator has them in its Config.json.

Source: Azure Service Bus emulator, "Configuration".
"""

import re
from typing import Any, Protocol

_SECONDS = {"D": 86400, "H": 3600, "M": 60, "S": 1}
# Their word, and ours.
_NAMES = {
    "LockDuration": "lock_duration",
    "MaxDeliveryCount": "max_delivery_count",
    "RequiresSession": "requires_session",
    "DefaultMessageTimeToLive": "default_message_time_to_live",
    "DeadLetteringOnMessageExpiration": "dead_lettering_on_message_expiration",
    "ForwardTo": "forward_to",
    "ForwardDeadLetteredMessagesTo": "forward_dead_lettered_messages_to",
}


class Creates(Protocol):
    """What makes entities."""

    def create_queue(self, name: str, **options: Any) -> str: ...
    def create_topic(self, name: str, **options: Any) -> str: ...
    def create_subscription(self, topic: str, name: str, **options: Any) -> str: ...


def create_all(server: Creates, config: dict[str, Any]) -> None:
    """Make the entities of a configuration."""
    for namespace in config["UserConfig"]["Namespaces"]:
        for queue in namespace.get("Queues", []):
            server.create_queue(queue["Name"], **options(queue["Properties"]))
        for topic in namespace.get("Topics", []):
            given = options(topic["Properties"])
            server.create_topic(topic["Name"], duplicate_detection=given["duplicate_detection"])
            for one in topic.get("Subscriptions", []):
                rules = [_rule(rule["Properties"]) for rule in one.get("Rules", [])]
                does = options(one["Properties"])
                server.create_subscription(topic["Name"], one["Name"], rules=rules or None, **does)


def options(properties: dict[str, Any]) -> dict[str, Any]:
    """Read what an entity does, in the words of `Options`."""
    found: dict[str, Any] = {
        ours: properties[theirs] for theirs, ours in _NAMES.items() if theirs in properties
    }
    for name in ("lock_duration", "default_message_time_to_live"):
        if name in found:
            found[name] = seconds(found[name])
    window = properties.get("DuplicateDetectionHistoryTimeWindow", "PT0S")
    found["duplicate_detection"] = seconds(window) if properties.get("RequiresDuplicateDetection") else 0
    return found


def _rule(properties: dict[str, Any]) -> dict[str, Any]:
    """Read a rule, in the words of `rules.from_json`."""
    if properties["FilterType"] == "Sql":
        return {"sql": properties["SqlFilter"]["SqlExpression"]}
    given = dict(properties["CorrelationFilter"])
    own = given.pop("Properties", {})
    system = {re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(): value for name, value in given.items()}
    if "label" in system:
        system["subject"] = system.pop("label")
    return {"correlation": system, "properties": own}


def seconds(duration: str) -> float:
    """Read a duration such as PT1M30S.

    Raises:
        ValueError: It is none.
    """
    found = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?", duration)
    if found is None:
        raise ValueError(f"no duration: {duration}")
    return sum(
        float(number or 0) * unit for number, unit in zip(found.groups(), _SECONDS.values(), strict=True)
    )
