"""Tags of jobs and trials: short words to find them again by. They are kept as one text."""

import re
from collections.abc import Sequence

MAX_TAG_LENGTH = 40
MAX_TAGS = 20
_SEPARATORS = re.compile(r"[\s,]+")
_TAG = re.compile(rf"[\w.:-]{{1,{MAX_TAG_LENGTH}}}")


def parse(text: str) -> list[str]:
    """Return the tags in a text, which spaces or commas separate, in lower case and without repetitions.

    Raises:
        ValueError: there are too many tags, or one has other characters than letters, digits and `_.:-`, or is too
            long.
    """
    tags = list(dict.fromkeys(tag for tag in _SEPARATORS.split(text.lower()) if tag))
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise ValueError(
                f"the tag {tag[:MAX_TAG_LENGTH]!r} must have at most {MAX_TAG_LENGTH} letters, digits, _, ., : or -"
            )
    if len(tags) > MAX_TAGS:
        raise ValueError(f"there are {len(tags)} tags; {MAX_TAGS} are allowed")
    return tags


def pack(tags: Sequence[str]) -> str:
    """Return the text that tags are kept as. A search for a tag between two spaces finds it."""
    return f" {' '.join(tags)} " if tags else ""
