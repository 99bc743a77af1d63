"""Tags are short words, and found again as they were typed."""

import pytest

from backend.core.tags import MAX_TAG_LENGTH, MAX_TAGS, pack, parse


def test_tags_are_words_in_lower_case_without_repetitions() -> None:
    assert parse(" Baseline, baseline  paper:v2,\nökostrom ") == ["baseline", "paper:v2", "ökostrom"]
    assert parse(" , ") == []
    assert pack(parse("a b")) == " a b "
    assert pack([]) == ""


@pytest.mark.parametrize("text", ["a/b", "<b>", "a" * (MAX_TAG_LENGTH + 1), " ".join(map(str, range(MAX_TAGS + 1)))])
def test_other_tags_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="tag"):
        parse(text)
