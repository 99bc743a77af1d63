"""Metrics for Prometheus: the requests of the server, and the numbers of jobs, trials, and jobs that need attention.

With several worker processes, set `PROMETHEUS_MULTIPROC_DIR` to an empty folder that they share. Then the request
metrics cover all of them; otherwise each process exposes its own. The other numbers are read from the database at
each call, so they are the same on every replica. The endpoint lives in `api`.
"""

import os
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY, Collector

from ..usecases import reading

_SECONDS = Histogram("zeus_bso_request_seconds", "Time taken to answer.", ["method", "path", "status"])


class _Database(Collector):
    def collect(self) -> Iterable[Metric]:
        counts = reading.count()
        yield GaugeMetricFamily("zeus_bso_jobs", "Registered jobs.", value=counts.jobs)
        by_status = GaugeMetricFamily("zeus_bso_trials", "Trials by status.", labels=["status"])
        for status, number in counts.trials.items():
            by_status.add_metric([status], number)
        yield by_status
        attention = GaugeMetricFamily(
            "zeus_bso_jobs_for_attention", "Jobs whose last three runs or more need attention.", labels=["cause"]
        )
        attention.add_metric(["failed"], counts.failing)
        attention.add_metric(["without a verdict"], counts.crashing)
        yield attention


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


def expose() -> bytes:
    """Return all metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Database())
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        MultiProcessCollector(registry)
        return generate_latest(registry)
    return generate_latest(registry) + generate_latest(REGISTRY)
