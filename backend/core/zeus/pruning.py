"""The pruning stage of Zeus: rounds that try the batch sizes in order and keep those that converge.

A round walks downwards, from its default batch size through the smaller ones, then upwards through the larger ones. The
first batch size in a direction that does not converge ends that direction. So after a default that does not converge,
the round tries no smaller batch size. Only batch sizes that converged enter the next round, and the cheapest of them is
the default of that round (You et al., NSDI 2023, section 4.4).

The progress of a job is computed from the trials of its pruning each time. No stage is stored in between.
"""

from dataclasses import dataclass, field

from .. import breakdowns
from ..cost import trial_cost
from ..state import JobState, Trial, TrialStatus, TrialType
from .results import results


@dataclass(frozen=True, slots=True)
class Explore:
    """The next batch size of the round has no run yet and should be dispatched."""

    batch_size: int
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """A run of the round's next batch size is in progress. The round continues when the run has ended."""

    trial: Trial
    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """All rounds are over. `survivors` are the batch sizes that converged in the last round, ascending.

    If all of them have broken since, the default takes their place.
    """

    survivors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stuck:
    """No batch size converged in a round, so no next round is possible."""

    reason: str


Step = Explore | Wait | Done | Stuck


@dataclass(slots=True)
class Progress:
    """The progress of the pruning: the next step, and the ruled-out batch sizes with their reasons."""

    step: Step
    ruled_out: dict[int, str] = field(default_factory=dict)
    left_out: int | None = None
    """The first batch size that was not tried because a round's default had failed. Earlier versions try it."""


def progress(state: JobState) -> Progress:
    """Follow the job's trials through the rounds, up to the first batch size without a result.

    Batch sizes that break are skipped. They do not end a direction. After a failed default, a smaller batch size counts
    if it has been tried all the same, as earlier versions do.
    """
    spec, broken = state.spec, breakdowns.ruled_out(state)
    sizes, default = spec.batch_sizes, spec.default_batch_size
    explorations: dict[int, list[Trial]] = {}
    running = [t for t in state.trials if t.type is TrialType.PRUNING and t.status is TrialStatus.DISPATCHED]
    for trial in (*results(state).explored, *running):
        explorations.setdefault(trial.batch_size, []).append(trial)
    ruled_out = dict(broken)
    left_out: int | None = None
    round_start = 0  # trials that started up to this revision belong to earlier rounds
    for number in range(1, spec.num_pruning_rounds + 1):
        label = f"pruning round {number} of {spec.num_pruning_rounds}"
        outcomes: dict[int, Trial] = {}
        for direction, walk in _directions(sizes, default):
            for batch_size in walk:
                tries = [trial for trial in explorations.get(batch_size, ()) if trial.started > round_start]
                outcome = _first_outcome(tries)
                if outcome is None and batch_size in broken:
                    continue
                if outcome is None:
                    if explorer := next((t for t in tries if t.status is TrialStatus.DISPATCHED), None):
                        reason = f"{label}: trial {explorer.number} still explores batch size {batch_size}"
                        return Progress(Wait(explorer, reason), ruled_out, left_out)
                    if batch_size < default and default in outcomes and not outcomes[default].converged:
                        left_out = left_out or batch_size
                        break
                    return Progress(Explore(batch_size, f"{label}: {direction}"), ruled_out, left_out)
                outcomes[batch_size] = outcome
                if not outcome.converged:
                    break
        if not outcomes:  # all survivors of the last round have broken since
            break
        survivors = tuple(size for size in sizes if size in outcomes and outcomes[size].converged)
        for size in sizes:
            if size not in survivors and size not in broken:
                ruled_out[size] = _ruled_out_reason(size, outcomes, label)
        if not survivors:
            return Progress(Stuck(f"no batch size converged in {label}"), ruled_out, left_out)
        default = min(survivors, key=lambda size: trial_cost(spec, outcomes[size]))
        round_start = max(outcome.ended or 0 for outcome in outcomes.values())
        sizes = survivors
    arms = tuple(size for size in sizes if size not in broken)
    return Progress(Done(arms or (spec.default_batch_size,)), ruled_out, left_out)


def _directions(sizes: tuple[int, ...], default: int) -> tuple[tuple[str, list[int]], ...]:
    return (
        ("the round's default batch size", [default]),
        (f"downwards from {default}", [size for size in reversed(sizes) if size < default]),
        (f"upwards from {default}", [size for size in sizes if size > default]),
    )


def _first_outcome(tries: list[Trial]) -> Trial | None:
    """Return the try that ended first.

    A lost run may report after its replacement has ended. Its late result must not change the outcome.
    """
    ended = (trial for trial in tries if trial.status is TrialStatus.SUCCEEDED)
    return min(ended, key=lambda trial: trial.ended or 0, default=None)


def _ruled_out_reason(size: int, outcomes: dict[int, Trial], label: str) -> str:
    if size in outcomes:
        return f"did not converge in {label} (trial {outcomes[size].number})"
    failed_sizes = [failed for failed, trial in outcomes.items() if not trial.converged]
    barrier = min(failed_sizes, key=lambda failed: abs(failed - size))
    side = "smaller" if size < barrier else "larger"
    return f"not tried in {label}: {barrier} did not converge, so {side} batch sizes were left out"
