"""``postseal quarantine`` on SQS in this process."""

import pytest

from tests.quarantines import QuarantineContract


class TestSqs(QuarantineContract):
    @pytest.fixture
    def at(self, line, monkeypatch):
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        return []
