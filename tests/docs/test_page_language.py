"""The pages speak plain English: no retired phrase in their text; code, commands and quoted output are left out."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import NAMES, tokens
from tests.docs.test_language import RETIRED_PHRASES

LEFT: tuple[str, ...] = ()
"""Pages that still have retired phrases; this list only shrinks."""
PAGES = [name for name in NAMES if not name.startswith("docs/reference/") and name not in LEFT]
"""The reference consists of help texts and docstrings, which are checked where they are written."""
PHRASES = {name: pattern for name, pattern in RETIRED_PHRASES.items() if name != "so many"} | {
    "so many": r"\bso (?:many|much) (?!as\b|that\b)",
    "tell": r"\b(?:tells?|telling) (?:what|how|when|who|which|S\b)",
    "is no": r"\b(?:is|are) no (?:fault|page|side|member|place)\b",
    "by itself": r"\bby (?:itself|themselves)\b",
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_no_retired_phrase(page: str) -> None:
    text = "".join(
        "\n" if token.type in ("softbreak", "paragraph_close", "td_close") else token.content
        for token in tokens(page)
        if token.type in ("text", "softbreak", "paragraph_close", "td_close")
    )
    flat = re.sub(r'"[^"\n]{0,80}"', "", text).replace("\n", " ")
    found = [
        f"{name}: ...{flat[max(0, match.start() - 40) : match.end() + 40]}..."
        for name, pattern in PHRASES.items()
        for match in re.finditer(pattern, flat, re.IGNORECASE)
    ]
    assert found == []
