"""Destination patterns as the users of each broker write them, and what they mean to policies.

A policy knows ``scheme:name``. An SQS queue may also be written by its ARN or URL, an SNS topic by its ARN, a Service Bus entity by its
path or its address. What is bound is the name alone: neither account nor region, nor namespace or subscription.
"""

from __future__ import annotations

import re
from typing import Final

from postseal.core.config._kinds import Schema, Text
from postseal.core.config._report import At
from postseal.core.context import check_destination
from postseal.core.errors import ConfigError, nearest

__all__ = ["SCHEMES", "Destination", "logical"]

SCHEMES: Final = ("kafka", "rabbitmq", "servicebus", "sns", "sqs")
_ARN: Final = re.compile(r"arn:[^:]+:(?P<service>[a-z0-9-]+):[^:]*:[^:]*:(?P<name>.+)")
_KAFKA: Final = re.compile(r"[A-Za-z0-9._*-]{1,249}")
_QUEUE: Final = re.compile(r"[A-Za-z0-9_*-]{1,80}(?:\.fifo)?|[A-Za-z0-9_*-]{0,79}\*(?:\.(?:f|fi|fif|fifo)?)?")
_TOPIC: Final = re.compile(r"[A-Za-z0-9_*-]{1,256}(?:\.fifo)?")
_BUS: Final = re.compile(
    r"(?P<name>.+?)(?:/subscriptions/[^/]+)?(?P<sub>(?:/\$transfer)?/\$deadletterqueue)?", re.IGNORECASE
)
_BUS_ADDRESS: Final = re.compile(r"(?:sb|https|amqps?)://[^/]+/(?P<path>.+?)/?", re.IGNORECASE)


class Destination(Text):
    """A destination, or a pattern of destinations."""

    def __init__(self, *, pattern: bool = True) -> None:
        super().__init__(
            "a destination", schema={"minLength": 3, "examples": ["kafka:orders", "rabbitmq:shop/orders.#"]}
        )
        self.words = "a destination" + (" or pattern" if pattern else "") + ', like `"kafka:orders"`'
        self._pattern = pattern

    def read(self, value: object, at: At) -> str | None:
        """Return it as policies know it."""
        written = super().read(value, at)
        if written is None:
            return None
        try:
            name = logical(written)
        except ConfigError as error:
            at.wrong(str(error))
            return None
        if not self._pattern and "*" in name:
            at.wrong(f"{written!r} must be one destination, not a pattern")
            return None
        return name

    def schema(self) -> Schema:
        """Say that it is text, and give examples."""
        return super().schema()


def logical(written: str) -> str:
    """Return the pattern of policies that *written* means.

    Raises:
        ConfigError: It means none; the text says what would be right.
    """
    if (arn := _ARN.fullmatch(written.removeprefix("sqs:").removeprefix("sns:"))) is not None:
        return _of_arn(written, arn)
    if re.match(r"(?:sqs:)?https?://(?:sqs\.|queue\.|[^/]*/\d{12}/)", written) is not None:
        return _checked("sqs:" + written.rstrip("/").rpartition("/")[2], written)
    if (address := _BUS_ADDRESS.fullmatch(written.removeprefix("servicebus:"))) is not None:
        return _checked("servicebus:" + address["path"], written)
    return _checked(written, written)


def _of_arn(written: str, arn: re.Match[str]) -> str:
    if arn["service"] not in ("sqs", "sns") or ":" in arn["name"]:
        raise ConfigError(f"{written!r} is the ARN of neither an SQS queue nor an SNS topic")
    return _checked(f"{arn['service']}:{arn['name']}", written)


def _checked(name: str, written: str) -> str:
    scheme, colon, rest = name.partition(":")
    if not colon:
        example = f"'rabbitmq:{name}'" if "/" in name else f"'kafka:{name}', 'sqs:{name}'"
        raise ConfigError(
            f"{written!r} does not say which broker it is on: write scheme:name, like {example}"
        )
    if scheme not in SCHEMES:
        raise ConfigError(f"{written!r}: there is no broker {scheme!r}{nearest(scheme, SCHEMES)}")
    check = _CHECKS[scheme]
    if not rest:
        raise ConfigError(f"{written!r} has no name behind {scheme!r}")
    return check_destination(f"{scheme}:{check(rest, written)}", "a destination")


def _kafka(name: str, written: str) -> str:
    if name.startswith("^") or name.endswith("$"):
        raise ConfigError(
            f"{written!r} is a regular expression; here `*` stands for any run of characters: 'kafka:orders.*'"
        )
    if _KAFKA.fullmatch(name) is None:
        raise ConfigError(
            f"{written!r} can be no topic: letters, digits, '.', '_' and '-', and '*' for any run of characters"
        )
    return name


def _rabbitmq(name: str, written: str) -> str:
    if "/" not in name and "*" not in name:
        raise ConfigError(
            f"{written!r} is neither an exchange nor a queue: write 'rabbitmq:{name}/routing.key', or 'rabbitmq:{name}/#' for all that is "
            f"published to it, or 'rabbitmq:/{name}' for what is sent straight to the queue"
        )
    key = name.partition("/")[2]
    for word in key.split("."):
        if "#" in word and word != "#":
            raise ConfigError(
                f"{written!r}: '#' stands for whole words, between dots: 'rabbitmq:shop/orders.#'"
            )
        if "*" in word and word != "*" and "/" in name:
            raise ConfigError(
                f"{written!r}: in a routing key '*' stands for one whole word, between dots: 'rabbitmq:shop/orders.*'"
            )
    return name


def _sqs(name: str, written: str) -> str:
    if _QUEUE.fullmatch(name) is None:
        raise ConfigError(
            f"{written!r} can be no queue of SQS: letters, digits, '-' and '_' and .fifo; up to 80; '*' for any run of characters"
        )
    return name


def _sns(name: str, written: str) -> str:
    if _TOPIC.fullmatch(name) is None:
        raise ConfigError(
            f"{written!r} can be no topic of SNS: letters, digits, '-' and '_', up to 256; '*' for any run of characters"
        )
    return name


def _servicebus(name: str, written: str) -> str:
    path = _BUS.fullmatch(name.strip("/"))
    if path is None:
        raise ConfigError(f"{written!r} is not the path of a queue, topic or subscription")
    return path["name"]


_CHECKS: Final = {"kafka": _kafka, "rabbitmq": _rabbitmq, "servicebus": _servicebus, "sns": _sns, "sqs": _sqs}
