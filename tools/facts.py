"""Write the facts of families that the reference does not know, from the models themselves.

    python tools/facts.py FAMILY...

A row of `tests/facts/FAMILY.json` that stands is kept: where it differs from the model, `tests/test_keys.py` says so.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from imgzoo import create_model
from imgzoo.registry import registry
from imgzoo.testing.facts import facts_of, format_facts

PACKAGES = Path(__file__).parents[1] / "packages"


def main(families: list[str]) -> None:
    specs = registry("models").specs()
    for family in families:
        own = [spec for spec in specs if spec.family == family]
        if not own:
            sys.exit(f"there is no family '{family}': add its catalog first")
        path = PACKAGES / own[0].plugin / "tests" / "facts" / f"{family}.json"
        rows = json.loads(path.read_text()) if path.exists() else {}
        rows |= {spec.name: facts_of(create_model(spec.name, device="meta")) for spec in own if spec.name not in rows}
        path.write_text(format_facts(rows))
        print(f"{path.relative_to(PACKAGES.parent)}: {len(rows)} names")


if __name__ == "__main__":
    main(sys.argv[1:])
