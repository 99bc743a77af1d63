"""Random jobs whose distributions are known, to test a policy beyond the traces.

The epochs to the target grow with the batch size (as in McCandlish et al., An Empirical Model of Large-Batch Training,
2018). Epochs get cheaper until the GPU is busy. Runs scatter, and very small or large batches may fail.
"""

import math

import numpy as np

from ..core.simulate import SizeRecord, Workload
from ..core.state import Spec

RUNS = 40
"""Known runs of every batch size."""


def workload(number: int, *, eta: float = 0.5, beta: float | None = 2.0) -> Workload:
    """Return a random job. The same number always gives the same job.

    Args:
        number: seed of the job.
        eta: weight of energy against time.
        beta: early-stop knob.
    """
    rng = np.random.default_rng(number)
    sizes = [int(2**power) for power in range(int(rng.integers(2, 5)), int(rng.integers(8, 13)))]
    fewest, critical = rng.uniform(3, 40), 2 ** rng.uniform(5, 11)
    samples, overhead, busy_at = 10 ** rng.uniform(4, 6), rng.uniform(0.005, 0.05), 2 ** rng.uniform(4, 9)
    idle_w, max_power = rng.uniform(40, 90), 250.0
    scatter, failing_above = rng.uniform(0.02, 0.15), 2 ** rng.uniform(8, 14)
    max_epochs = math.ceil(fewest * rng.uniform(3, 8))
    records = {}
    for size in sizes:
        steps = samples / size
        time_s = steps * overhead * max(1.0, size / busy_at)
        power_w = idle_w + (max_power - idle_w) * min(1.0, size / busy_at) * 0.85
        epochs = np.ceil(fewest * (1 + size / critical) * np.exp(scatter * rng.standard_normal(RUNS)))
        fails = rng.random(RUNS) < 1 / (1 + (failing_above / size) ** 3)
        records[size] = SizeRecord(time_s, power_w, tuple(map(float, np.where(fails, math.inf, epochs))))
    spec = Spec(
        batch_sizes=tuple(sizes),
        default_batch_size=sizes[int(rng.integers(0, len(sizes)))],
        eta_knob=eta,
        beta_knob=beta,
        target_metric=1.0,
        higher_is_better_metric=True,
        max_epochs=max_epochs,
        max_power=max_power,
    )
    return Workload(f"synthetic {number}", spec, records)
