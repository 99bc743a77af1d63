"""What servers did under load, and the Markdown tables of it that `benchmarks.server` writes."""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.load import Record

QUANTILES = (50, 95, 99)
NEAR_A_CORE = 0.7
"""Share of a core from which on the clients themselves may limit the calls per second."""
UNKNOWN = float("nan")


@dataclass(frozen=True)
class Target:
    """A server that is measured."""

    name: str
    url: str
    pids: Sequence[int]
    """Its processes. Empty: unknown, so its processor time is not measured."""
    database_pids: Sequence[int]


@dataclass(frozen=True)
class Sample:
    """What one server did in one round. Processor times are in seconds, and NaN if the processes are unknown."""

    record: Record
    wall_s: float
    client_s: float
    server_s: float
    database_s: float

    @property
    def calls_per_s(self) -> float:
        """Answered calls per second."""
        return sum(map(len, self.record.seconds.values())) / self.wall_s

    @property
    def cores_of_clients(self) -> float:
        """How much of a core the clients used."""
        return self.client_s / self.wall_s

    def per_call_ms(self, seconds: float) -> float:
        """Divide a time among the calls, in ms."""
        return seconds * 1e3 / max(1, self.record.calls)

    def quantile_ms(self, percent: int, call: str | None = None) -> float:
        """Return a percentile of the time of a call, or of all calls, in ms."""
        return quantile_ms([self], percent, call)


Measured = defaultdict[str, defaultdict[str, list[Sample]]]
"""By what was measured and by server: a sample of each round."""

LOAD: dict[str, Callable[[Sample], float]] = {
    "calls/s": lambda sample: sample.calls_per_s,
    "p50": lambda sample: sample.quantile_ms(50),
    "p99": lambda sample: sample.quantile_ms(99),
    "server CPU": lambda sample: sample.per_call_ms(sample.server_s),
    "database CPU": lambda sample: sample.per_call_ms(sample.database_s),
    "client CPU": lambda sample: sample.per_call_ms(sample.client_s),
}
CALLS = ("ask", "report", "final report")


def nothing_yet() -> Measured:
    """Return a place for samples."""
    return defaultdict(lambda: defaultdict(list))


def quantile_ms(samples: Iterable[Sample], percent: int, call: str | None = None) -> float:
    """Return a percentile over all samples of the time of a call, or of all calls, in ms."""
    times = [
        seconds
        for sample in samples
        for name, measured in sample.record.seconds.items()
        if call in (None, name)
        for seconds in measured
    ]
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1] * 1e3 if len(times) > 1 else UNKNOWN


def in_short(sample: Sample) -> str:
    """Write a sample in one line."""
    return ", ".join(f"{name} {number(value(sample))}" for name, value in LOAD.items())


def of_load(measured: Measured) -> str:
    """Write the medians of the rounds, and of the ratios in each round."""
    rows = []
    for subject, by_server in measured.items():
        for name, samples in by_server.items():
            rows.append([subject, name, *(spread(map(value, samples)) for value in LOAD.values())])
        rows += [[subject, "ratio", *ratios] for ratios in _ratios(by_server, LOAD.values())]
    return _table(["load", "server", *LOAD], rows) + _warnings(measured)


def of_calls(measured: Measured) -> str:
    """Write percentiles over all rounds, and the medians of the ratios of the 95th percentiles in each round."""
    rows = []
    for subject, by_server in measured.items():
        for name, samples in by_server.items():
            cells = [", ".join(number(quantile_ms(samples, q, call)) for q in QUANTILES) for call in CALLS]
            rows.append([subject, name, *cells])
        p95 = [lambda sample, call=call: sample.quantile_ms(95, call) for call in CALLS]
        rows += [[subject, "ratio of p95", *ratios] for ratios in _ratios(by_server, p95)]
    return _table(["job", "server", *(f"{call}: p50, p95, p99" for call in CALLS)], rows) + _warnings(measured)


def of_statements(numbers: Mapping[str, Mapping[str, set[int]]]) -> str:
    """Write the fewest and the most round trips of each call."""
    calls = next(iter(numbers.values()))
    rows = [[call, *(_range(column[call]) for column in numbers.values())] for call in calls]
    return _table(["round trips", *numbers], rows)


def number(value: float) -> str:
    """Write a number with about three digits."""
    if math.isnan(value):
        return "–"
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def spread(values: Iterable[float]) -> str:
    """Write the median, and the lowest and the highest value."""
    listed = list(values)
    median = number(statistics.median(listed))
    return median if len(listed) == 1 or median == "–" else f"{median} ({number(min(listed))}–{number(max(listed))})"


def _ratios(by_server: Mapping[str, list[Sample]], values: Iterable[Callable[[Sample], float]]) -> list[list[str]]:
    """Return a row of ratios of the first server to the second, or no row for one server."""
    if len(by_server) < 2:
        return []
    this, other = by_server.values()
    pairs = list(zip(this, other, strict=True))
    return [[spread(_ratio(value(a), value(b)) for a, b in pairs) for value in values]]


def _ratio(this: float, other: float) -> float:
    return this / other if other else UNKNOWN


def _range(values: set[int]) -> str:
    return str(min(values)) if len(values) == 1 else f"{min(values)}–{max(values)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _warnings(measured: Measured) -> str:
    """Say what makes the figures doubtful: failed calls, and clients that were busy themselves."""
    lines = []
    failures: Counter[str] = Counter()
    for by_server in measured.values():
        for name, samples in by_server.items():
            for sample in samples:
                failures.update({f"{name}: {what}": times for what, times in sample.record.failures.items()})
    lines += [f"Failed {times} times: {what}" for what, times in failures.most_common()]
    busiest = max(sample.cores_of_clients for servers in measured.values() for s in servers.values() for sample in s)
    lines.append(f"The clients used at most {busiest:.2f} of a core.")
    if busiest > NEAR_A_CORE:
        lines.append("They may have limited the calls per second.")
    return "\n" + "\n".join(lines) + "\n"
