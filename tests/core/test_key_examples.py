"""The example of two key services, on doubles of both."""

import runpy
from contextlib import closing
from pathlib import Path

from tests.core.key_vault import KeyVaultDouble
from tests.core.transit import TransitDouble

EXAMPLE = Path(__file__).parents[2] / "examples" / "two_key_services.py"


def test_the_example_opens_with_each_key_service_alone():
    """A5, B12."""
    run = runpy.run_path(str(EXAMPLE))["run"]
    with KeyVaultDouble() as key_vault, key_vault.client() as azure, TransitDouble() as transit:
        vault = transit.client()
        with closing(vault.adapter):
            key = transit.new_key()
            azure.create_rsa_key(key)
            sealed, *opened = run(azure, vault, key)
    assert sealed.endswith("card number inside: False")
    assert opened == [
        f'opened with {name}: {{"order": 4711, "card": "4111 1111 1111 1111"}}' for name in ("azure", "vault")
    ]
