"""``postseal demo``: sealed messages through up to four brokers, and what becomes of forged ones.

Kafka and SQS run in this process. RabbitMQ and Service Bus cannot; they take part where a server is named, and are named as left out where
none is.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from postseal.core.cli._console import console, print_json
from postseal.core.errors import MissingExtraError

if TYPE_CHECKING:
    from postseal.core.cli._broker import Broker
    from postseal.core.cli._story import Act

__all__ = ["command"]

_REGION: Final = "eu-west-1"
_Tell = Callable[[str], None]
_LEFT_OUT: Final = {
    "RabbitMQ": "no server was named: --rabbitmq amqp://guest:guest@localhost/, or make demo-all",
    "Service Bus": "no namespace was named: --servicebus 'Endpoint=sb://...', with empty queues orders and refunds, or make demo-all",
}
"""Why a broker takes no part, and how it would."""


def command(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the picture.")] = False,
    rabbitmq: Annotated[
        str | None,
        typer.Option(envvar="POSTSEAL_DEMO_RABBITMQ", metavar="URL", help="A RabbitMQ server, as amqp://..."),
    ] = None,
    servicebus: Annotated[
        str | None,
        typer.Option(
            envvar="POSTSEAL_DEMO_SERVICEBUS",
            metavar="CONNECTION",
            help="Connection string of a Service Bus namespace or emulator; its queues orders and refunds must be empty.",
        ),
    ] = None,
    svg: Annotated[Path | None, typer.Option(hidden=True, help="Write the picture for the README.")] = None,
) -> None:
    """Send sealed messages through brokers, and forged ones after them.

    Kafka, SQS and the key service live in this process and end with it: librdkafka's mock cluster, an emulator of SQS and KMS, a new key.
    RabbitMQ and Service Bus take part where you name a server. Exit code 1: something happened that must not happen.
    """
    named = {"RabbitMQ": rabbitmq, "Service Bus": servicebus}
    _check_extra(named)
    from postseal.core.cli import _show

    begun = time.monotonic()
    out = console()
    left_out = {name: why for name, why in _LEFT_OUT.items() if not named[name]}
    if as_json:
        acts = list(_acts(named, lambda _: None))
        print_json(_show.as_dict(acts, left_out, time.monotonic() - begun))
    else:
        acts = []
        _show.opening(out)
        with _show.progress(out) as tell:
            for act in _acts(named, tell):
                acts.append(act)
                _show.act(out, act)
        _show.attacks(out, acts)
        _show.summary(out, acts, left_out, time.monotonic() - begun)
        if svg is not None:
            _show.write_svg(svg, acts)
    if any(act.problems for act in acts):
        raise typer.Exit(1)


def _acts(named: Mapping[str, str | None], tell: _Tell) -> Iterator[Act]:
    """Play the story on each broker, one after the other."""
    tell("starting: SQS and KMS, in this process")
    with _undisturbed(), ExitStack() as stack:
        make_client = stack.enter_context(_aws())
        from postseal.core.cli._parties import KeyService, Parties
        from postseal.core.cli._story import Story

        events: list[Any] = []
        service = KeyService(lambda: make_client("kms"))
        parties = Parties(service, events.append)
        for broker in _brokers(named, lambda: make_client("sqs"), tell):
            stack.callback(broker.close)
            yield Story(broker, parties, service, events=events, tell=tell).play()


def _brokers(named: Mapping[str, str | None], make_sqs: Callable[[], Any], tell: _Tell) -> Iterator[Broker]:
    """Make one broker after the other: those of this process, then those that were named."""
    from postseal.core.cli._kafka import Kafka
    from postseal.core.cli._sqs import Sqs

    yield Kafka()
    yield Sqs(make_sqs)
    if url := named["RabbitMQ"]:
        from postseal.core.cli._rabbitmq import RabbitMq

        tell("RabbitMQ: connecting")
        yield RabbitMq(url)
    if connection_string := named["Service Bus"]:
        from postseal.core.cli._servicebus import ServiceBus

        tell("Service Bus: connecting")
        yield ServiceBus(connection_string)


@contextmanager
def _aws() -> Iterator[Callable[[str], Any]]:
    """Run an emulator in this process, and give what makes clients of it. No request leaves the process."""
    from unittest import mock

    import boto3
    from moto import mock_aws

    # What is set for the user's own work (profile, endpoint) must not lead anywhere else.
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    ours |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    with mock.patch.dict(os.environ, ours, clear=True), mock_aws():
        make_client: Any = boto3.session.Session(region_name=_REGION).client
        yield make_client


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep warnings and logs off the picture: what they would say of refused messages, the audit events show."""
    log = logging.getLogger("postseal")
    handler, propagates = logging.NullHandler(), log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagates


def _check_extra(named: Mapping[str, str | None]) -> None:
    """See to it that all is there, without loading it yet.

    Raises:
        MissingExtraError: It is not.
    """
    for module in ("boto3", "confluent_kafka", "moto"):
        if find_spec(module) is None:
            raise MissingExtraError.naming("demo", "the demonstration", ImportError(name=module))
    for name, extra, module in (
        ("RabbitMQ", "rabbitmq", "pika"),
        ("Service Bus", "servicebus", "azure.servicebus"),
    ):
        if named[name] and not _is_there(module):
            raise MissingExtraError.naming(extra, f"the demonstration on {name}", ImportError(name=module))


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even its parent
        return False
