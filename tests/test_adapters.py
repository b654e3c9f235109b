"""Guards of the adapters' fronts. They stand here because the tests of the core run where no client is installed, too."""

import importlib

import pytest

from tests.core.test_house import ADAPTERS, check_all


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_all_is_what_is_public(adapter):
    check_all(importlib.import_module(f"postseal.{adapter}"))
