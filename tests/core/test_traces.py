"""Whole jobs over measured trainings: `choose` and `judge` make exactly the published decisions.

The data: ShuffleNet v2 on CIFAR-100 with Adadelta (learning rate 0.1) to a validation accuracy of 0.6, on a
V100 at 250 W, from "Zeus: Understanding and Optimizing GPU Energy Consumption of DNN Training" (You, Chung,
Chowdhury, NSDI 2023), repository ml-energy/zeus, folder
`examples/research_reproducibility/zeus_nsdi23/trace`, Apache-2.0.
"""

from dataclasses import dataclass

import pytest

from backend.core.policies import choose, judge
from backend.core.rng import seeded
from backend.core.state import JobState, Report, Trial, TrialStatus
from tests.core.reference import Zeus
from tests.core.stories import running
from tests.specs import core_spec

TRACES = {  # batch size: seconds per epoch, average watts, epochs to the target in four runs
    8: (240.31000000000003, 39.09333069394869, (37, 38, 45, 42)),
    16: (125.90000000000002, 42.0253097629992, (18, 18, 21, 19)),
    32: (63.70666666666667, 52.002328354552965, (16, 15, 17, 17)),
    64: (33.21333333333333, 88.73447353295255, (19, 21, 17, 17)),
    128: (17.149999999999995, 123.09095781815486, (18, 22, 19, 19)),
    256: (10.056666666666665, 178.30724680750953, (40, 31, 26, 30)),
    512: (8.276666666666666, 195.88311799775082, (49, 43, 40, 41)),
    1024: (7.613333333333333, 187.68996594563717, (74, 80, 71, 70)),
    2048: (7.69, 178.7948591771565, (191, 276, 151, 168)),
}
DEFAULT = 1024
MAX_POWER_W = 250.0
MAX_EPOCHS = 100
BETA = 2.0
RECURRENCES = 60

# The batch sizes of 60 recurrences with seed 1 and eta 0.5, from the independent implementation.
REGRESSION = [
    *(1024, 512, 256, 128, 64, 32, 2048, 128, 64, 256, 512, 1024, *[128] * 6),
    *(256, *[128] * 14, 256, *[128] * 14, 256, *[128] * 11),
]


@dataclass
class Outcome:
    """The outcome of a run."""

    batch_size: int
    epochs: int
    converged: bool


def target_epoch(size: int, runs_before: int) -> int:
    """Return the epochs to the target of a batch size's next run. Its known runs take turns."""
    return TRACES[size][2][runs_before % 4]


def as_decided(seed: int, eta: float) -> list[Outcome]:
    """Return the outcomes when the code under test decides."""
    spec = core_spec(
        batch_sizes=tuple(TRACES),
        default_batch_size=DEFAULT,
        eta_knob=eta,
        beta_knob=BETA,
        max_epochs=MAX_EPOCHS,
        max_power=MAX_POWER_W,
    )
    rng, trials, outcomes = seeded(seed), [], []
    for number in range(1, RECURRENCES + 1):
        state = JobState(spec, tuple(trials))
        choice = choose(state, rng)
        seconds, watts, _ = TRACES[choice.batch_size]
        reached = target_epoch(choice.batch_size, sum(o.batch_size == choice.batch_size for o in outcomes))
        epoch = 0
        while True:
            epoch += 1
            time = epoch * seconds
            verdict = judge(state, running(state), Report(1.0 if epoch >= reached else 0.0, time * watts, time, epoch))
            if verdict.stop:
                break
        outcomes.append(Outcome(choice.batch_size, epoch, verdict.converged))
        trials.append(
            Trial(
                *(number, choice.batch_size, choice.type, TrialStatus.SUCCEEDED, verdict.converged),
                *(time * watts, time, epoch, 2 * number, 2 * number + 1),
            )
        )
    return outcomes


def as_published(seed: int, eta: float) -> list[Outcome]:
    """Return the outcomes when the independent implementation decides."""
    zeus, outcomes = Zeus(list(TRACES), DEFAULT, 2, seed=seed, beta=BETA), []
    for _ in range(RECURRENCES):
        size, _ = zeus.next_size()
        seconds, watts, _ = TRACES[size]
        reached = target_epoch(size, sum(outcome.batch_size == size for outcome in outcomes))
        for epoch in range(1, MAX_EPOCHS + 1):
            time = epoch * seconds
            cost = eta * (time * watts) + (1 - eta) * MAX_POWER_W * time
            if cost > zeus.bound or epoch == reached:
                break
        converged = epoch == reached and cost <= zeus.bound
        zeus.finish(size, cost, converged)
        outcomes.append(Outcome(size, epoch, converged))
    return outcomes


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_whole_job_goes_as_published(seed: int, eta: float) -> None:
    assert as_decided(seed, eta) == as_published(seed, eta)


def test_a_whole_job_goes_as_it_always_has() -> None:
    assert [outcome.batch_size for outcome in as_decided(seed=1, eta=0.5)] == REGRESSION


def test_a_whole_job_ends_with_the_batch_sizes_that_cost_least() -> None:
    cost = {
        size: (0.5 * watts + 0.5 * MAX_POWER_W) * seconds * sum(epochs) / 4
        for size, (seconds, watts, epochs) in TRACES.items()
    }
    cheapest = sorted(cost, key=cost.__getitem__)[:3]
    last = [outcome.batch_size for outcome in as_decided(seed=1, eta=0.5)][-20:]
    assert sum(size in cheapest for size in last) >= 15
