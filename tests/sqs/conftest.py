"""SQS in this process, by moto."""

import io
import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from moto import mock_aws
from moto.server import ThreadedMotoServer

from tests.contract import World
from tests.sqs.line import Aiobotocore, AioLine, ClientLine

_OPTIONS: dict[str, Any] = {
    "region_name": "eu-west-1",
    "aws_access_key_id": "test",
    "aws_secret_access_key": "test",
    "config": Config(retries={"total_max_attempts": 2}),
}


def make_client() -> Any:
    return boto3.client("sqs", **_OPTIONS)


def make_resource() -> Any:
    return boto3.resource("sqs", **_OPTIONS)


@pytest.fixture
def aws() -> Iterator[None]:
    with mock_aws():
        yield


@pytest.fixture
def line(aws: None) -> ClientLine:
    return ClientLine(make_client)


@pytest.fixture
def world(line: ClientLine) -> World:
    return World(line)


@pytest.fixture(scope="session")
def moto_address() -> Iterator[str]:
    """SQS and SNS by HTTP, for what moto cannot reach in this process."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aio(moto_address: str) -> Iterator[Aiobotocore]:
    """Clients of aiobotocore, and the loop they live in."""
    options = {name: value for name, value in _OPTIONS.items() if name != "config"}
    with Aiobotocore({**options, "endpoint_url": moto_address}) as aio:
        yield aio


@pytest.fixture
def aio_line(aio: Aiobotocore, moto_address: str) -> AioLine:
    return AioLine(lambda: boto3.client("sqs", endpoint_url=moto_address, **_OPTIONS), aio)


class _Content(io.BytesIO):
    """A response's content, as botocore reads it."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


class Wire:
    """What left a client, request by request; answers in the place of SQS where it is given answers.

    Args:
        client: Any client of botocore.
        answers: Pairs of HTTP status and JSON, each for one request; None lets the request pass. Later requests pass, too.
    """

    def __init__(self, client: Any, *answers: tuple[int, Any] | None) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self._answers = list(answers)
        client.meta.events.register_first("before-send.sqs", self._on_send)

    def _on_send(self, request: Any, event_name: str, **_: Any) -> AWSResponse | None:
        self.requests.append((event_name.rpartition(".")[2], json.loads(request.body)))
        answer = self._answers.pop(0) if self._answers else None
        if answer is None:
            return None
        status, content = answer
        # botocore asks all handlers and takes the first answer: moto must not do what was answered for it.
        request.url = "https://answered.invalid/"
        return AWSResponse(request.url, status, {}, _Content(json.dumps(content).encode()))

    def sent(self, operation: str) -> list[dict[str, Any]]:
        """Return the parameters of each request of *operation*."""
        return [params for name, params in self.requests if name == operation]
