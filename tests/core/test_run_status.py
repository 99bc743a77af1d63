"""One word for how a run stands, whatever the outcome code of its trial."""

import pytest

from backend.core.run_status import CODES, RunStatus, in_words, run_status
from backend.core.state import EndCode, VerdictCode


def test_every_outcome_code_stands_for_one_status() -> None:
    codes = [code for codes in CODES.values() for code in codes]
    assert sorted(codes) == sorted({*VerdictCode, *EndCode} - {VerdictCode.CONTINUE})
    assert {run_status(code) for code in (None, *codes)} == set(RunStatus)


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        (None, "running", "running"),
        ("converged", "converged", "converged"),
        ("cost_bound", "failed", "failed: cost bound"),
        ("out_of_memory", "failed", "failed: out of memory"),
        ("priced_out", "priced_out", "priced out"),
        ("ended", "crashed", "crashed"),
        ("lost", "lost", "lost"),
        ("left", "ended", "ended by its training"),
        ("stopped", "ended", "ended by a user"),
        ("calibrated", "measured", "measured"),
    ],
)
def test_a_status_is_a_word_and_gives_its_reason_in_words(code: str | None, status: str, words: str) -> None:
    assert run_status(code) == status
    assert in_words(code) == words
