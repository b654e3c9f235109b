"""The client of Service Bus, with naps as short as the way to the server."""

from collections.abc import Iterator

import pytest

from tests.servicebus.naps import short_naps


@pytest.fixture(scope="session", autouse=True)
def _naps() -> Iterator[None]:
    with short_naps():
        yield
