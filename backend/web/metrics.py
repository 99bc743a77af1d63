"""Figures for Prometheus: the calls of this server's processes, and what its database holds.

With several worker processes, set `PROMETHEUS_MULTIPROC_DIR` to an empty folder that they share, and the
calls are those of all of them; without it each process tells its own. What the database holds is read at
the time of asking, so it is right on every replica.
"""

import os
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY, Collector

from backend.usecases import reading

_SECONDS = Histogram("zeus_bso_request_seconds", "Time taken to answer.", ["method", "path", "status"])


class _Database(Collector):
    def collect(self) -> Iterable[Metric]:
        jobs, trials = reading.count()
        yield GaugeMetricFamily("zeus_bso_jobs", "Registered jobs.", value=jobs)
        by_status = GaugeMetricFamily("zeus_bso_trials", "Trials by status.", labels=["status"])
        for status, number in trials.items():
            by_status.add_metric([status], number)
        yield by_status


def observe(method: str, path: str, status: int, seconds: float) -> None:
    """Count a request.

    Args:
        method: its HTTP method.
        path: the rule it matched, not its path: ids in labels would make ever more of them.
        status: of the answer.
        seconds: it took.
    """
    _SECONDS.labels(method, path, str(status)).observe(seconds)


def expose() -> bytes:
    """All figures in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Database())
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        MultiProcessCollector(registry)
        return generate_latest(registry)
    return generate_latest(registry) + generate_latest(REGISTRY)
