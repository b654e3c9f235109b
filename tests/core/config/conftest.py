"""Reads texts as policy files."""

from __future__ import annotations

import pytest

from postseal.core.config import PolicyFile
from tests.core.config.kit import NOW


@pytest.fixture
def read(tmp_path):
    """Reads a text as a policy file."""

    def read(text: str, **options) -> PolicyFile:
        path = tmp_path / "policy.toml"
        path.write_text(text, "utf-8")
        return PolicyFile.read(path, **{"now": NOW, **options})

    return read
