"""The pruning stage of Zeus: rounds that walk over the batch sizes and keep those that converge.

A round tries its default batch size, then smaller ones downwards, then larger ones upwards; the first in a
direction that does not converge ends that direction. Only batch sizes that converged go on, and the
cheapest of them is the next round's default (You et al., NSDI 2023, section 4.4).

Where a job stands is found by walking the trials of its pruning anew each time; no stage is remembered in between.
"""

from dataclasses import dataclass, field

from backend.core.cost import trial_cost
from backend.core.state import JobState, Trial, TrialStatus, TrialType
from backend.core.zeus.results import results


@dataclass(frozen=True, slots=True)
class Explore:
    """The next batch size of the round, which no run has been given yet."""

    batch_size: int
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """A run of the round's next batch size is under way; the round goes on when it has ended."""

    trial: Trial
    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """All rounds are over. `survivors`: the batch sizes that converged in the last one, ascending."""

    survivors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stuck:
    """No batch size converged in a round, so none is left to go on with."""

    reason: str


Step = Explore | Wait | Done | Stuck


@dataclass(slots=True)
class Progress:
    """Where the pruning stands: the next step, and why batch sizes were left behind."""

    step: Step
    ruled_out: dict[int, str] = field(default_factory=dict)


def progress(state: JobState) -> Progress:
    """Walk the job's trials through the rounds up to the first batch size without a result."""
    spec = state.spec
    sizes, default = spec.batch_sizes, spec.default_batch_size
    explorations: dict[int, list[Trial]] = {}
    under_way = [t for t in state.trials if t.type is TrialType.PRUNING and t.status is TrialStatus.DISPATCHED]
    for trial in (*results(state).explored, *under_way):
        explorations.setdefault(trial.batch_size, []).append(trial)
    ruled_out: dict[int, str] = {}
    began = 0  # trials given out before this revision belong to earlier rounds
    for number in range(1, spec.num_pruning_rounds + 1):
        label = f"pruning round {number} of {spec.num_pruning_rounds}"
        outcomes: dict[int, Trial] = {}
        for direction, walk in _directions(sizes, default):
            for batch_size in walk:
                tried = [trial for trial in explorations.get(batch_size, ()) if trial.started > began]
                outcome = _first_outcome(tried)
                if outcome is None:
                    if running := next((t for t in tried if t.status is TrialStatus.DISPATCHED), None):
                        reason = f"{label}: trial {running.number} still explores batch size {batch_size}"
                        return Progress(Wait(running, reason), ruled_out)
                    return Progress(Explore(batch_size, f"{label}: {direction}"), ruled_out)
                outcomes[batch_size] = outcome
                if not outcome.converged:
                    break
        survivors = tuple(size for size in sizes if size in outcomes and outcomes[size].converged)
        for size in sizes:
            if size not in survivors:
                ruled_out[size] = _why(size, outcomes, label)
        if not survivors:
            return Progress(Stuck(f"no batch size converged in {label}"), ruled_out)
        default = min(survivors, key=lambda size: trial_cost(spec, outcomes[size]))
        began = max(outcome.ended or 0 for outcome in outcomes.values())
        sizes = survivors
    return Progress(Done(sizes), ruled_out)


def _directions(sizes: tuple[int, ...], default: int) -> tuple[tuple[str, list[int]], ...]:
    return (
        ("the round's default batch size", [default]),
        (f"downwards from {default}", [size for size in reversed(sizes) if size < default]),
        (f"upwards from {default}", [size for size in sizes if size > default]),
    )


def _first_outcome(tried: list[Trial]) -> Trial | None:
    """The first to end: a run taken for lost that reports after all cannot rewrite what came of its stand-in."""
    ended = (trial for trial in tried if trial.status is TrialStatus.SUCCEEDED)
    return min(ended, key=lambda trial: trial.ended or 0, default=None)


def _why(size: int, outcomes: dict[int, Trial], label: str) -> str:
    if size in outcomes:
        return f"did not converge in {label} (trial {outcomes[size].number})"
    nearer = [failed for failed, trial in outcomes.items() if not trial.converged]
    barrier = min(nearer, key=lambda failed: abs(failed - size))
    side = "smaller" if size < barrier else "larger"
    return f"not tried in {label}: {barrier} did not converge, so {side} ones were left out"
