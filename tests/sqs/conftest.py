"""SQS in this process, by moto."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto import mock_aws

from tests.contract import World
from tests.sqs.line import ClientLine

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
