"""Metrics for Prometheus: the requests of the server, jobs and trials, what needs attention, and what is saved.

With several worker processes, set `PROMETHEUS_MULTIPROC_DIR` to an empty folder that they share. Then the request
metrics cover all of them; otherwise each process exposes its own. The other numbers are read from the database at
each call, so they are the same on every replica. The endpoint lives in `api`.
"""

import os
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY, Collector

from ..usecases import overview, reading

_SECONDS = Histogram("zeus_bso_request_seconds", "Time taken to answer.", ["method", "path", "status"])


class _Database(Collector):
    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s

    def collect(self) -> Iterable[Metric]:
        counts, monitored = reading.count(), overview.monitored(self._lease_s)
        total = monitored.total
        yield GaugeMetricFamily("zeus_bso_jobs", "Registered jobs.", value=counts.jobs)
        yield _by("zeus_bso_trials", "Trials by status.", "status", counts.trials)
        text = "Jobs that need attention, each once, by its most urgent cause."
        yield _by("zeus_bso_jobs_for_attention", text, "cause", monitored.attention)
        for name, text, value in (
            ("failures_in_a_row", "Most failed runs of a job since its last success.", monitored.failures_in_a_row),
            ("crashes_in_a_row", "Most last runs of a job without a verdict.", monitored.crashes_in_a_row),
            ("overdue_trials", "Running trials whose lease has expired.", monitored.overdue_count),
            ("spent_energy_joules", "Energy used by all ended runs.", total.sums.usage.energy_j),
            ("spent_cost_joules", "Cost of all ended runs.", total.sums.usage.cost_j),
            ("saved_energy_joules", "Energy saved against the default batch sizes.", total.saved.energy_j),
            ("saved_cost_joules", "Cost saved against the default batch sizes.", total.saved.cost_j),
        ):
            yield GaugeMetricFamily(f"zeus_bso_{name}", text, value=value)
        text = f"Recommended batch size of the {overview.MAX_LABELLED_JOBS} jobs with the latest launches."
        yield _by("zeus_bso_recommended_batch_size", text, "job_id", monitored.recommended)


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value_of_label, value in values.items():
        family.add_metric([value_of_label], value)
    return family


def observe(method: str, path: str, status: int, seconds: float) -> None:
    """Record a request.

    Args:
        method: the HTTP method.
        path: the URL rule that matched, not the path. With ids in the labels, the number of labels would never stop
            growing.
        status: the HTTP status of the answer.
        seconds: the time that the answer took.
    """
    _SECONDS.labels(method, path, str(status)).observe(seconds)


def expose(lease_s: float) -> bytes:
    """Return all metrics in Prometheus' text format.

    Args:
        lease_s: seconds until the lease of a run expires.
    """
    registry = CollectorRegistry()
    registry.register(_Database(lease_s))
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        MultiProcessCollector(registry)
        return generate_latest(registry)
    return generate_latest(registry) + generate_latest(REGISTRY)
