"""Where long texts may break, and where they are cut, so that the tables fit on a screen."""

import re

from markupsafe import Markup, escape

MAX_TEXT_LENGTH = 90
"""Most characters of a text in a cell."""
MAX_PIECE_LENGTH = 24
"""Most characters of an id without a place to break."""
_PIECE = re.compile(rf"[^/._-]{{1,{MAX_PIECE_LENGTH}}}[/._-]*|[/._-]+")


def breakable(text: str) -> str | Markup:
    """An id that may break after its separators, and within a long part, if it is long. Copied, it is the same."""
    if len(text) <= MAX_PIECE_LENGTH:
        return text
    return Markup("<wbr>").join(escape(piece) for piece in _PIECE.findall(text))


def brief(text: str | None) -> str | Markup:
    """A text of at most `MAX_TEXT_LENGTH` characters. If it is longer, the pointer shows the whole."""
    if text is None or len(text) <= MAX_TEXT_LENGTH:
        return text or ""
    return Markup('<span title="{}">{}…</span>').format(text, text[: MAX_TEXT_LENGTH - 1].rstrip())
