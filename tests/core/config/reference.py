"""The reference in docs/policy.md, made from the table that reads the file: ``python -m tests.core.config.reference`` writes it."""

from __future__ import annotations

import json
from pathlib import Path

from postseal.core.config._delegation import ROOTS
from postseal.core.config._keys import BREAKER, LIMIT, PROVIDERS, RETRY
from postseal.core.config._kinds import Table
from postseal.core.config._ledger import STORES as LEDGERS
from postseal.core.config._policies import DATA_KEY, OPENING, POLICY
from postseal.core.config._references import STORES
from postseal.core.config._sections import FILE
from postseal.core.config._signers import ALGORITHMS

PAGE = Path(__file__).parents[3] / "docs" / "policy.md"
MARK = "Made from the table that reads the file.\n\n"


def rows(table: Table) -> str:
    """Return *table* in Markdown."""
    lines = ["| option | what | default |", "|---|---|---|"]
    for option in table.options.values():
        default = "" if option.default is None else f"`{json.dumps(option.default)}`"
        lines.append(f"| `{option.name}` | {option.doc} | {'**needed**' if option.required else default} |")
    return "\n".join(lines)


def reference() -> str:
    """Return all tables."""
    sections = {
        "The top": FILE,
        "`[[policy]]`": POLICY,
        "`data_key`": DATA_KEY,
        "`opening`": OPENING,
        **{f'`[keys.NAME]`, `provider = "{name}"`': each.table for name, each in PROVIDERS.items()},
        **{f"`{each.what}` of `[keys.NAME]`": each for each in (RETRY, BREAKER, LIMIT)},
        **{f'`[references]`, `store = "{name}"`': table for name, table in STORES.items()},
        **{f'`[ledger]`, `store = "{name}"`': each.table for name, each in LEDGERS.items()},
        **{
            f'A key of `[signers.NAME]`, `algorithm = "{name}"`': each.key
            for name, each in ALGORITHMS.items()
        },
        **{
            f'`root` of such a key, `algorithm = "{name}"`': each.key
            for name, each in ROOTS.items()
            if name not in ALGORITHMS
        },
    }
    return "\n\n".join(f"### {title}\n\n{rows(table)}" for title, table in sections.items()) + "\n"


if __name__ == "__main__":
    before, mark, _ = PAGE.read_text("utf-8").partition(MARK)
    PAGE.write_text(before + mark + reference(), "utf-8")
