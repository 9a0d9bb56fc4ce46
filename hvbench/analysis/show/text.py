"""Untrusted text -> one printable line, and that line as literal Markdown; and names in a row.

Records are untrusted: nothing of them is shown before.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence


def clean_text(text: str, *, limit: int = 200) -> str:
    """One printable line of at most `limit` characters: control, format and separator characters become spaces."""
    # Twice the limit is enough: a longer text is cut anyway, and a hostile one may be very long.
    visible = text[: 2 * limit]
    if not visible.isprintable():  # as nearly all are
        visible = "".join(
            " " if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} else c for c in visible
        )
    line = " ".join(visible.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def escape_markdown(text: str, *, limit: int = 200) -> str:
    """`text` as literal inline Markdown: no cell, tag, link, emphasis, mention or formula can come out of it."""
    line = (
        clean_text(text, limit=limit)
        .replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace("@", "&#64;")
    )
    line = re.sub(r"([\\`*\[\]|~$])", r"\\\1", line)
    line = re.sub(r"(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])", r"\\_", line)
    return line.replace("://", "&#58;//").replace("www.", "www&#46;")


def join_names(names: Sequence[str], *, word: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {word} {names[-1]}"
