"""Rule out batch sizes whose runs break: they end in an error before they have completed an epoch.

One error says little: it may come from the machine or the network. A batch size is ruled out after the same error
twice, while another batch size works, or at once if the caller says that the error will come again. Then the batch
sizes beyond it are ruled out too: what a training cannot do with half of its usual batch size, such as more steps than
a schedule has, it cannot do with a quarter either. So a training that works with one batch size alone breaks twice at
most.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from .state import Breakdown, JobState, Spec

REPETITIONS = 2
"""Number of breakdowns by the same error after which a batch size is ruled out."""
MAX_SINGLE = 5
"""Limit of the errors that are kept for a batch size without a repetition: the latest ones."""
COMPARED_LENGTH = 200
"""Number of characters of an error that are compared, and shown."""

# A word with a digit: a number, a date, a version, an address (0x7f…) or a random name.
_VARYING = re.compile(r"[+-]?\w*\d\w*(?:[.:+-]+\w*\d\w*)*")


def ruled_out(state: JobState) -> dict[int, str]:
    """Return the batch sizes that breakdowns rule out, each with the reason. The default is never among them."""
    reasons: dict[int, str] = {}
    default = state.spec.default_batch_size
    for size in {breakdown.batch_size for breakdown in state.breakdowns} - {default}:
        of_size = [breakdown for breakdown in state.breakdowns if breakdown.batch_size == size]
        unfit = [breakdown for breakdown in of_size if breakdown.unfit]
        if unfit:
            reasons[size] = f"cannot be trained with: {_brief(unfit[-1].error)}"
        elif size not in state.working_sizes and state.working_sizes and (repeated := _repeated(of_size)):
            reasons[size] = f"ended in the same error twice before its first epoch: {_brief(repeated[-1].error)}"
    unfit_sizes = {breakdown.batch_size for breakdown in state.breakdowns if breakdown.unfit} - {default}
    for size in set(state.spec.batch_sizes) - reasons.keys() - state.working_sizes:
        nearer = [other for other in unfit_sizes if default < other < size or size < other < default]
        if nearer:
            nearest = min(nearer, key=lambda other: abs(other - default))
            reasons[size] = f"lies beyond batch size {nearest}, which {reasons[nearest]}"
    return reasons


def depends_on_working_sizes(breakdowns: Sequence[Breakdown]) -> bool:
    """Return whether `ruled_out` reads the state's working sizes."""
    return bool(_repeated(breakdowns)) or any(breakdown.unfit for breakdown in breakdowns)


def with_breakdown(spec: Spec, earlier: Sequence[Breakdown], latest: Breakdown) -> tuple[Breakdown, ...]:
    """Return the breakdowns with one more. Those that no decision will need are left out.

    What rules a batch size out is never left out, so that `core.replay` finds it again.
    """
    if latest.batch_size == spec.default_batch_size:
        return tuple(earlier)
    same = [breakdown for breakdown in earlier if _kind(breakdown) == _kind(latest)]
    if len(same) >= (1 if latest.unfit else REPETITIONS):
        return tuple(earlier)
    after = (*earlier, latest)
    needed = _repeated(after)
    single = [
        breakdown
        for breakdown in after
        if breakdown.batch_size == latest.batch_size and not breakdown.unfit and breakdown not in needed
    ]
    forgotten = single[:-MAX_SINGLE]
    return tuple(breakdown for breakdown in after if breakdown not in forgotten)


@lru_cache(maxsize=1024)
def comparable(error: str) -> str:
    """Return an error without what varies from run to run, such as numbers, addresses and the end of a long text."""
    return _VARYING.sub("#", " ".join(error.split()))[:COMPARED_LENGTH]


def _repeated(breakdowns: Iterable[Breakdown]) -> list[Breakdown]:
    """Return the breakdowns whose error has come often enough with their batch size."""
    known = [breakdown for breakdown in breakdowns if not breakdown.unfit]
    counts = Counter(map(_kind, known))
    return [breakdown for breakdown in known if counts[_kind(breakdown)] >= REPETITIONS]


def _kind(breakdown: Breakdown) -> tuple[int, bool, str]:
    """Return what makes two breakdowns the same. For an unfit batch size, any reason will do."""
    return breakdown.batch_size, breakdown.unfit, "" if breakdown.unfit else comparable(breakdown.error)


def _brief(error: str) -> str:
    line = " ".join(error.split())
    return line if len(line) <= COMPARED_LENGTH else line[: COMPARED_LENGTH - 1] + "…"
