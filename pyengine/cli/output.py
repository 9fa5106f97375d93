"""What the commands print: tables, JSON, formats, and errors.

Names, commands and labels come out of images, and images are not trusted: whatever goes to a terminal through here has
its control characters made visible, so that no label can move the cursor or rename the window.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROL_IN_TEXT = re.compile(_CONTROL.pattern.replace(r"\x00-\x1f", r"\x00-\x08\x0b-\x1f"))


_GAP = 3  # blanks between the columns of a table on a terminal


def visible(text: str, *, lines: bool = False) -> str:
    """The text with control characters, and those that reverse the direction of writing, written as escapes.

    ``lines`` keeps newlines and tabs.
    """
    return (_CONTROL_IN_TEXT if lines else _CONTROL).sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return {9: r"\t", 10: r"\n", 13: r"\r"}.get(code) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def write(text: str) -> None:
    """Write to stdout and flush, so that a reader that has gone is found out here and not at exit."""
    sys.stdout.write(text)
    sys.stdout.flush()


def line(text: str) -> None:
    write(f"{text}\n")


def is_terminal(stream: Any) -> bool:
    """Whether a stream of Python is a terminal; a closed one (None) is not."""
    return stream is not None and not stream.closed and bool(stream.isatty())


def report(text: str) -> None:
    """One error for people, on stderr."""
    if sys.stderr is not None:
        print(f"Error: {visible(text, lines=True)}", file=sys.stderr, flush=True)


def to_json(document: Any, *, indent: int | None = None) -> str:
    """JSON that is safe to show: no byte of it is a control character."""
    import json

    text = json.dumps(document, indent=indent, ensure_ascii=False, separators=None if indent else (",", ":"))
    return _CONTROL_IN_TEXT.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, heading: bool = True) -> None:
    """Columns: aligned text when piped, a table of rich on a terminal."""
    cells = [[visible(cell) for cell in row] for row in rows]
    if is_terminal(sys.stdout):
        _print_rich_table(headings, cells, heading)
        return
    write("".join(f"{text}\n" for text in align([list(headings), *cells] if heading else cells)))


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines in which columns begin at the same place, two blanks apart at least."""
    widths: list[int] = []
    for row in rows:
        for number, cell in enumerate(row):
            if number == len(widths):
                widths.append(0)
            widths[number] = max(widths[number], len(cell))
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() if row else ""
        for row in rows
    ]


def _print_rich_table(headings: Sequence[str], rows: Sequence[Sequence[str]], heading: bool) -> None:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # A line that is too long goes on in the next one, as in podman: it can be copied, and folded cells cannot.
    natural = sum(max(map(cell_len, column)) + _GAP for column in zip(headings, *rows, strict=True))
    console = Console(highlight=False)
    console.width = max(console.width, natural)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=heading)
    for name in headings:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def print_records(
    records: Sequence[Mapping[str, Any]],
    format: str,
    *,
    documents: Sequence[Mapping[str, Any]] | None = None,
    headings: Mapping[str, str],
    heading: bool = True,
    aliases: Mapping[str, str] | None = None,
) -> None:
    """Records as ``--format`` says: ``json`` (then it is ``documents``, if given), a Go template for a line each, or
    ``table`` and a template with tabs between its columns."""
    from pyengine.cli.template import parse_template

    if format == "json":
        line(to_json(list(records if documents is None else documents), indent=2))
        return
    word, _, rest = format.partition(" ")
    template = parse_template(rest.strip() if word == "table" else format, aliases)
    if word == "table":
        rows = [template.render(record, visible).split("\t") for record in records]
        print_table(template.headings(headings).split("\t"), rows, heading=heading)
    else:
        write("".join(f"{visible(template.render(record), lines=True)}\n" for record in records))
