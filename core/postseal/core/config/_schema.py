"""The JSON Schema of policy files, for editors; made from the table that reads them."""

from __future__ import annotations

from typing import Any

from postseal.core.config._sections import FILE

__all__ = ["policy_schema"]


def policy_schema() -> dict[str, Any]:
    """Return the schema. Published as ``docs/policy.schema.json``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "postseal policy file",
        **FILE.schema(),
    }
