"""The cost of a run: one number, in joules, from its energy and its time."""

from .state import Spec, Trial


def cost(energy_j: float, time_s: float, *, eta: float, max_power_w: float) -> float:
    """Return the cost of a run in joules: eta * energy + (1 - eta) * max_power * time (You et al., NSDI 2023, eq. 2).

    Args:
        energy_j: energy used, in joules, >= 0.
        time_s: time taken, in seconds, >= 0.
        eta: weight of energy against time, in [0, 1].
        max_power_w: maximum power draw in watts, summed over the GPUs of the run, > 0.

    Raises:
        ValueError: a value is outside its range. NaN is outside every range.
    """
    if not (energy_j >= 0 and time_s >= 0 and 0 <= eta <= 1 and max_power_w > 0):
        raise ValueError(
            f"cost of energy_j={energy_j}, time_s={time_s} with eta={eta}, max_power_w={max_power_w}: out of range"
        )
    return eta * energy_j + (1 - eta) * max_power_w * time_s


def run_cost(spec: Spec, energy_j: float, time_s: float) -> float:
    """Return the cost, in joules, of a run of a job that has used this energy and time."""
    return cost(energy_j, time_s, eta=spec.eta_knob, max_power_w=spec.max_power)


def trial_cost(spec: Spec, trial: Trial) -> float:
    """Return the cost of a trial so far, in joules."""
    return run_cost(spec, trial.energy_j, trial.time_s)
