"""``postseal demo``: sealed messages through Kafka and SQS, and what becomes of forged ones, all in this process."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from postseal.core.cli._console import console, print_json
from postseal.core.errors import MissingExtraError

if TYPE_CHECKING:
    from postseal.core.cli._story import Act

__all__ = ["command"]

_REGION: Final = "eu-west-1"
_Tell = Callable[[str], None]


def command(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the picture.")] = False,
    svg: Annotated[Path | None, typer.Option(hidden=True, help="Write the picture for the README.")] = None,
) -> None:
    """Send sealed messages through Kafka and SQS, and forged ones after them.

    Everything lives in this process and ends with it: librdkafka's mock cluster, an emulator of SQS and KMS, a new key. Nothing leaves
    this machine. Exit code 1: something happened that must not happen.
    """
    _check_extra()
    from postseal.core.cli import _show

    begun = time.monotonic()
    out = console()
    if as_json:
        acts = list(_acts(lambda _: None))
        print_json(_show.as_dict(acts, time.monotonic() - begun))
    else:
        acts = []
        _show.opening(out)
        with _show.progress(out) as tell:
            for act in _acts(tell):
                acts.append(act)
                _show.act(out, act)
        _show.attacks(out, acts)
        _show.summary(out, acts, time.monotonic() - begun)
        if svg is not None:
            _show.write_svg(svg, acts)
    if any(act.problems for act in acts):
        raise typer.Exit(1)


def _acts(tell: _Tell) -> Iterator[Act]:
    """Play the story on each broker, one after the other."""
    tell("starting: SQS and KMS, in this process")
    with _undisturbed(), ExitStack() as stack:
        make_client = stack.enter_context(_aws())
        from postseal.core.cli._kafka import Kafka
        from postseal.core.cli._parties import KeyService, Parties
        from postseal.core.cli._sqs import Sqs
        from postseal.core.cli._story import Story

        events: list[Any] = []
        service = KeyService(lambda: make_client("kms"))
        parties = Parties(service, events.append)
        for make in (Kafka, lambda: Sqs(lambda: make_client("sqs"))):
            broker = make()
            stack.callback(broker.close)
            yield Story(broker, parties, service, events=events, tell=tell).play()


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


def _check_extra() -> None:
    """See to it that all is there, without loading it yet.

    Raises:
        MissingExtraError: It is not.
    """
    for module in ("boto3", "confluent_kafka", "moto"):
        if find_spec(module) is None:
            raise MissingExtraError.naming("demo", "the demonstration", ImportError(name=module))
