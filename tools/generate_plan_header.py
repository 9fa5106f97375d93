"""Write native/monitor/plan_kinds.h from the dataclasses of pyengine/runtime/plan.py.

The header holds, for each kind of record, its number, the types of its fields and an index for each field, so that
the reader in C is one loop over data and the two sides cannot drift apart. `tests/unit/runtime/test_plan.py` checks
that the file in the tree is what this program would write.

Usage: python tools/generate_plan_header.py [--check]
"""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pyengine.runtime.plan import Plan, Record, Settings, step_kinds

HEADER = Path(__file__).resolve().parent.parent / "native" / "monitor" / "plan_kinds.h"

#: how the reader in C calls the type of a field
TYPES = {"int": "i", "bool": "b", "str": "t", "bytes": "y", "tuple[int, ...]": "I", "tuple[str, ...]": "T"}


def constant(name: str) -> str:
    """``MakeDirectory`` → ``MAKE_DIRECTORY``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()


def generate() -> str:
    """The text of the header."""
    kinds: list[type[Record]] = [*step_kinds(), Settings]
    lines = [
        "/* Written by tools/generate_plan_header.py from pyengine/runtime/plan.py: change that, not this. */",
        "#pragma once",
        "",
        f"#define FIRST_DESCRIPTOR {Plan.FIRST_DESCRIPTOR}",
        f"#define MAX_FIELDS {max(len(fields(kind)) for kind in kinds)}",
        "",
        "/* Types of fields: i integer, b 0 or 1, t text, y bytes, I list of integers, T list of texts. */",
        "#define RECORD_KINDS(X) \\",
    ]
    for kind in kinds:
        types = "".join(TYPES[str(field.type)] for field in fields(kind))
        lines.append(f'\tX({constant(kind.__name__)}, {kind.KIND}, "{types}") \\')
    lines[-1] = lines[-1].removesuffix(" \\")
    lines += ["", "enum record_kind {"]
    lines += [f"\tKIND_{constant(kind.__name__)} = {kind.KIND}," for kind in kinds]
    lines += ["};"]
    for kind in kinds:
        if fields(kind):
            names = ", ".join(f"{constant(kind.__name__)}_{field.name.upper()}" for field in fields(kind))
            lines += ["", "enum {", *(f"\t{name}," for name in names.split(", ")), "};"]
    return "\n".join(lines) + "\n"


def main() -> int:
    text = generate()
    if sys.argv[1:] == ["--check"]:
        return 0 if HEADER.read_text() == text else 1
    HEADER.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
