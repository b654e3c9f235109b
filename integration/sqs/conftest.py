"""Clients of aiobotocore beside those of boto3."""

import pytest

from tests.sqs.line import Aiobotocore


@pytest.fixture
def aio(aws):
    """Clients of aiobotocore of the emulator, and the loop they live in."""
    options = {name: value for name, value in aws._options(None).items() if name != "config"}
    with Aiobotocore(options) as aio:
        yield aio
