"""The cost of the policies on the paper's traces and on other jobs: the tables of docs/policies.md.

    python -m benchmarks.policies [--seeds 100] [--write]

All contenders of a table have the same luck. `--write` writes the tables into docs/policies.md.
"""

import argparse
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

from rich.progress import Progress

from backend.core.gp_ucb import belief, policy
from backend.core.gp_ucb.belief import warm_belief, warm_start
from backend.core.policies import compact
from backend.core.simulate import SizeRecord, cheapest_size, simulate
from backend.core.state import JobState, Trial, TrialStatus, TrialType
from backend.simulator import synthetic, traces
from backend.simulator.study import Comparison, Drift, Outcome, Scenario, compare_all, geometric_mean, ratio

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs" / "policies.md"
BEGIN, END = "<!-- measured: python -m benchmarks.policies --write -->", "<!-- end of measured -->"
TUNED, HELD_OUT = ("v100", "p100"), ("rtx6000", "a40")
CHANGE = Drift(60, 2.5)
AFTER_CHANGE = 100
PROBE_S, NO_TIME_S = 3.0, 1e-9
OTHER_TARGETS = 60
DEAREST = 5
HARDLY_EVER, MOSTLY = 0.25, 0.75
"""Shares of converging runs: at most the first is "hardly ever", at least the second is "mostly"."""


@dataclass(frozen=True)
class Case:
    """A scenario, its GPU, and the paper's horizon for it."""

    gpu: str
    scenario: Scenario
    horizon: int


def cases(data: traces.Traces, jobs: Iterable[traces.TracedJob], **options: bool) -> list[Case]:
    """Return every job on every GPU, for 100 recurrences or the paper's horizon, whichever is longer."""
    result = []
    for gpu in traces.GPUS:
        for job in jobs:
            workload = traces.workload(data, gpu, job, **options)
            horizon = 2 * len(workload.sizes) * traces.power_limits(data, gpu, job)
            result.append(Case(gpu, Scenario(workload, max(100, horizon)), horizon))
    return result


def converging_share(record: SizeRecord, max_epochs: int) -> float:
    """Return the share of the known runs that reach the target within `max_epochs`."""
    return sum(epochs <= max_epochs for epochs in record.epochs) / len(record.epochs)


def other_targets(data: traces.Traces) -> list[Case]:
    """Return every job on every GPU with every target but the paper's, if some batch size converges to it."""
    result = []
    for gpu in traces.GPUS:
        for job in traces.JOBS.values():
            for target in data.targets(job):
                if target != job.target:
                    workload = traces.workload(data, gpu, replace(job, target=target))
                    workload = replace(workload, name=f"{workload.name} to {target:g}")
                    horizon = 2 * len(workload.sizes) * traces.power_limits(data, gpu, job)
                    if len(workload.sizes) > 1 and cheapest_size(workload) is not None:
                        result.append(Case(gpu, Scenario(workload, max(100, horizon)), horizon))
    return result


def share_of_default(case: Case) -> float:
    """Return the share of converging runs of the default batch size."""
    spec = case.scenario.workload.spec
    return converging_share(case.scenario.workload.sizes[spec.default_batch_size], spec.max_epochs)


def share_of_best(case: Case) -> float:
    """Return the share of converging runs of the cheapest batch size."""
    workload = case.scenario.workload
    return converging_share(workload.sizes[cheapest_size(workload) or 0], workload.spec.max_epochs)


def spread(cases: Sequence[Case], number: int) -> list[Case]:
    """Return a number of the cases, evenly spread."""
    return (
        [cases[round(place * (len(cases) - 1) / (number - 1))] for place in range(number)] if number > 1 else [*cases]
    )


def stretched(case: Case) -> Case:
    """Return the case with a change of the epochs, and with a `max_epochs` that leaves room for it."""
    workload = case.scenario.workload
    spec = replace(workload.spec, max_epochs=math.ceil(workload.spec.max_epochs * CHANGE.factor))
    recurrences = CHANGE.recurrence + AFTER_CHANGE
    return Case(case.gpu, Scenario(replace(workload, spec=spec), recurrences, drift=CHANGE), recurrences)


def warm(case: Case, donor: Case) -> Case:
    """Return the case with a warm start from another GPU's job after fifty recurrences."""
    workload = case.scenario.workload
    donor_job = replace(donor.scenario.workload, spec=replace(donor.scenario.workload.spec, policy="gp-ucb"))
    state = JobState(donor_job.spec, ())
    for number, run in enumerate(simulate(donor_job, 50, 1_000_000), 1):
        trial = Trial(
            *(number, run.batch_size, TrialType.MAB, TrialStatus.SUCCEEDED, run.converged),
            *(run.energy_j, run.time_s, run.epochs, 2 * number, 2 * number + 1),
        )
        state = compact(replace(state, trials=(trial,)))
    spec = replace(workload.spec, policy="gp-ucb")
    name = f"{workload.name} from {donor.gpu}"
    initial = warm_belief(spec, warm_start(state, spec))
    scenario = Scenario(replace(workload, name=name, spec=spec), 20, initial=initial)
    return Case(case.gpu, scenario, 20)


def cell(values: Sequence[float]) -> str:
    """Format the geometric mean, with the worst value in brackets."""
    return f"{geometric_mean(values):.3f} ({max(values):.3g})"


Row = tuple[str, Sequence[Case], Sequence[Comparison], str]
"""A row of a table: its name, its cases, their comparisons, and the contender whose outcome it shows."""


class Bench:
    """Runs the comparisons, prints their tables, and collects the printed lines in `text`."""

    def __init__(self, seeds: int) -> None:
        self.seeds = seeds
        self.fewer = max(1, seeds // 5)
        self.text: list[str] = []

    def write(self, line: str = "") -> None:
        """Print a line of Markdown."""
        print(line, flush=True)
        self.text.append(line)

    def compare(self, cases: Sequence[Case], contenders: Sequence[str], seeds: int | None = None) -> list[Comparison]:
        """Compare contenders on all cases."""
        scenarios = [case.scenario for case in cases]
        with Progress(transient=True) as progress:
            comparisons = compare_all(scenarios, contenders, seeds or self.seeds)
            return list(progress.track(comparisons, total=len(cases), description=", ".join(contenders)))

    def table(self, rows: Iterable[Row]) -> None:
        """Write a table of ratios to the clairvoyant."""
        self.write("| | 20 recurrences | 50 | 100 | horizon | failed tries | stuck | endless |")
        self.write("|---|---|---|---|---|---|---|---|")
        for name, cases, comparisons, contender in rows:
            outcomes = [
                (case, comparison, outcome)
                for case, comparison in zip(cases, comparisons, strict=True)
                if (outcome := outcome_of(comparison, contender)) is not None
            ]
            columns = [
                cell(
                    [
                        ratio(outcome, comparison.clairvoyant, until or case.horizon)
                        for case, comparison, outcome in outcomes
                    ]
                )
                for until in (20, 50, 100, None)
            ]
            failed = sum(outcome.failed for _, _, outcome in outcomes) / sum(len(o.cost_j) for _, _, o in outcomes)
            stuck = sum(outcome.stuck for _, _, outcome in outcomes)
            endless = sum(outcome.endless for _, _, outcome in outcomes)
            self.write(f"| {name} | {' | '.join(columns)} | {failed:.1f} | {stuck} | {endless} |")
        self.write()


def outcome_of(comparison: Comparison, name: str) -> Outcome | None:
    """Return the outcome of a contender, the default or the floor."""
    return {"default": comparison.default, "floor": comparison.floor}.get(name) or comparison.contenders.get(name)


def on_gpus(
    cases: Sequence[Case], comparisons: Sequence[Comparison], gpus: Sequence[str]
) -> tuple[list[Case], list[Comparison]]:
    """Return the cases on some GPUs, and their comparisons."""
    selected = [pair for pair in zip(cases, comparisons, strict=True) if pair[0].gpu in gpus]
    return [case for case, _ in selected], [comparison for _, comparison in selected]


def by_gpu(cases: Sequence[Case], comparisons: Sequence[Comparison], contender: str) -> list[Row]:
    """Return a row for the GPUs that the constants come from, and a row for the others."""
    return [
        (f"{contender}, v100 and p100 (the constants come from these)", *on_gpus(cases, comparisons, TUNED), contender),
        (f"{contender}, rtx6000 and a40 (held out)", *on_gpus(cases, comparisons, HELD_OUT), contender),
    ]


def pairs(bench: Bench, data: traces.Traces) -> None:
    """Write the tables of the paper's jobs."""
    at_max = cases(data, traces.JOBS.values())
    policies = bench.compare(at_max, ("gp-ucb", "zeus"))
    baselines = bench.compare(at_max, ("grid", "random"), bench.fewer)
    bench.write("### The paper's six workloads on four GPUs, power limit at its maximum")
    bench.write()
    rows: list[Row] = [(name, at_max, policies, name) for name in ("gp-ucb", "zeus", "default", "floor")]
    rows += [(f"{name} ({bench.fewer} seeds)", at_max, baselines, name) for name in ("grid", "random")]
    for name in ("gp-ucb", "zeus"):
        rows += by_gpu(at_max, policies, name)
    bench.table(rows)
    worst = max(
        ratio(comparison.contenders["gp-ucb"], comparison.contenders["zeus"], until or case.horizon)
        for case, comparison in zip(at_max, policies, strict=True)
        for until in (20, 50, 100, None)
    )
    bench.write(f"In the worst case over all pairs and horizons, gp-ucb costs {worst:.4f} times as much as zeus.")
    bench.write()
    appendix(bench, at_max, policies)
    best = cases(data, traces.JOBS.values(), best_power_limit=True)
    bench.write("### The same workloads, with the cheapest power limit for each batch size")
    bench.write()
    policies = bench.compare(best, ("gp-ucb", "zeus"))
    bench.table([(name, best, policies, name) for name in ("gp-ucb", "zeus", "default", "floor")])


def appendix(bench: Bench, cases: Sequence[Case], comparisons: Sequence[Comparison]) -> None:
    """Write one row per job and GPU."""
    bench.write("<details><summary>Every pair</summary>")
    bench.write()
    bench.write("| pair | horizon | gp-ucb: 20, 50, 100, horizon | zeus: the same | default, horizon |")
    bench.write("|---|---|---|---|---|")
    for case, comparison in zip(cases, comparisons, strict=True):
        clairvoyant = comparison.clairvoyant
        columns = [
            ", ".join(
                f"{ratio(comparison.contenders[name], clairvoyant, until or case.horizon):.3f}"
                for until in (20, 50, 100, None)
            )
            for name in ("gp-ucb", "zeus")
        ]
        default = (
            "never converges"
            if comparison.default is None
            else f"{ratio(comparison.default, clairvoyant, case.horizon):.3f}"
        )
        bench.write(f"| {case.scenario.workload.name} | {case.horizon} | {' | '.join(columns)} | {default} |")
    bench.write()
    bench.write("</details>")
    bench.write()


def targets(bench: Bench, data: traces.Traces) -> None:
    """Write the tables of other targets than the paper's, including hopeless ones."""
    all_cases = other_targets(data)
    sound = [case for case in all_cases if share_of_best(case) >= MOSTLY]
    easy = [case for case in sound if share_of_default(case) > HARDLY_EVER]
    sample = spread(easy, OTHER_TARGETS)
    for title, selected in (
        (
            f"{len(sample)} jobs with other targets (evenly from {len(easy)} whose best batch size mostly converges)",
            sample,
        ),
        (
            "All jobs with other targets whose best batch size mostly converges and whose default hardly ever does",
            [case for case in sound if share_of_default(case) <= HARDLY_EVER],
        ),
        ("Jobs where no batch size mostly converges", [case for case in all_cases if share_of_best(case) < MOSTLY]),
    ):
        bench.write(f"### {title}: {len(selected)}")
        bench.write()
        comparisons = bench.compare(selected, ("gp-ucb", "zeus"), bench.fewer)
        bench.table(
            [
                *((name, selected, comparisons, name) for name in ("gp-ucb", "zeus")),
                *by_gpu(selected, comparisons, "gp-ucb"),
            ]
        )
        if selected is sample:
            dearest(bench, selected, comparisons)


def dearest(bench: Bench, cases: Sequence[Case], comparisons: Sequence[Comparison]) -> None:
    """Write the jobs in which gp-ucb costs most, compared with zeus."""
    ratios = [
        (ratio(comparison.contenders["gp-ucb"], comparison.contenders["zeus"], until or case.horizon), case, until)
        for case, comparison in zip(cases, comparisons, strict=True)
        for until in (20, 50, 100, None)
    ]
    ratios.sort(key=lambda entry: -entry[0])
    worst = ", ".join(
        f"{case.scenario.workload.name} at {until or case.horizon} recurrences ({value:.3f} times)"
        for value, case, until in ratios[:DEAREST]
    )
    bench.write(f"Compared with zeus, gp-ucb costs most in {worst}.")
    bench.write()


def rules(bench: Bench, data: traces.Traces) -> None:
    """Write the table of two rules of gp-ucb, on and off."""
    bench.write(
        f"### With and without two rules: a wider search after a step that has paid, a look at the first epoch "
        f"({bench.fewer} seeds)"
    )
    bench.write()
    sound = [case for case in other_targets(data) if share_of_best(case) >= MOSTLY]
    groups = {
        "the paper's jobs": cases(data, traces.JOBS.values()),
        "other targets": spread([case for case in sound if share_of_default(case) > HARDLY_EVER], OTHER_TARGETS),
        "the default hardly ever converges": [case for case in sound if share_of_default(case) <= HARDLY_EVER],
        "random jobs": synthetic_cases(),
    }
    rows: list[Row] = []
    for group, selected in groups.items():
        for paying_share, look_share, name in (
            (belief.PAYING_SHARE, policy.LOOK_SHARE, "both"),
            (belief.PAYING_SHARE, math.inf, "the wider search alone"),
            (0.0, policy.LOOK_SHARE, "the look alone"),
            (0.0, math.inf, "neither"),
        ):
            with (  # the processes that simulate are forks of this one
                patch.object(belief, "PAYING_SHARE", paying_share),
                patch.object(policy, "LOOK_SHARE", look_share),
            ):
                comparisons = bench.compare(selected, ("gp-ucb",), bench.fewer)
            rows.append((f"{group}: {name}", selected, comparisons, "gp-ucb"))
    bench.table(rows)


def synthetic_cases() -> list[Case]:
    """Return random jobs of 100 recurrences in which some batch size converges."""
    selected = [Case("", Scenario(synthetic.workload(number), 100), 100) for number in range(40)]
    return [case for case in selected if cheapest_size(case.scenario.workload) is not None]


def random_jobs(bench: Bench) -> None:
    """Write the table of random jobs."""
    selected = synthetic_cases()
    bench.write(f"### {len(selected)} random jobs (`backend/simulator/synthetic.py`), 100 recurrences")
    bench.write()
    comparisons = bench.compare(selected, ("gp-ucb", "zeus"), bench.fewer)
    bench.table([(name, selected, comparisons, name) for name in ("gp-ucb", "zeus", "floor")])


def changes(bench: Bench, data: traces.Traces) -> None:
    """Write the table of jobs that change in the middle (drift)."""
    selected = [stretched(case) for case in cases(data, traces.JOBS.values())]
    bench.write(
        f"### All epochs times {CHANGE.factor:g} from recurrence {CHANGE.recurrence + 1} on "
        f"(max_epochs {CHANGE.factor:g} times as high throughout)"
    )
    bench.write()
    comparisons = bench.compare(selected, ("gp-ucb", "zeus"), bench.fewer)
    bench.write(f"| | {AFTER_CHANGE} recurrences after the change | the first 20 of them | endless |")
    bench.write("|---|---|---|---|")
    for name in ("gp-ucb", "zeus"):
        columns = [
            cell(
                [
                    ratio(
                        comparison.contenders[name],
                        comparison.clairvoyant,
                        CHANGE.recurrence + until,
                        CHANGE.recurrence,
                    )
                    for comparison in comparisons
                ]
            )
            for until in (AFTER_CHANGE, 20)
        ]
        endless = sum(comparison.contenders[name].endless for comparison in comparisons)
        bench.write(f"| {name} | {' | '.join(columns)} | {endless} of {len(comparisons) * bench.fewer} |")
    bench.write()


def at_once(bench: Bench, data: traces.Traces) -> None:
    """Write the table of several recurrences at the same time."""
    bench.write("### Several recurrences at the same time")
    bench.write()
    rows = []
    for concurrency in (2, 4, 8):
        selected = [
            replace(case, scenario=replace(case.scenario, concurrency=concurrency))
            for case in cases(data, traces.JOBS.values())
        ]
        comparisons = bench.compare(selected, ("gp-ucb", "zeus"), bench.fewer)
        rows += [(f"{name}, {concurrency} at once", selected, comparisons, name) for name in ("gp-ucb", "zeus")]
    bench.table(rows)


def warm_starts(bench: Bench, data: traces.Traces) -> None:
    """Write the result of warm starts from another GPU's job."""
    cold = cases(data, traces.JOBS.values())
    donors = {(case.gpu, case.scenario.workload.name.split("/")[0]): case for case in cold}
    selected = [
        warm(case, donors[gpu, case.scenario.workload.name.split("/")[0]])
        for case in cold
        for gpu in traces.GPUS
        if gpu != case.gpu
    ]
    comparisons = bench.compare(selected, ("gp-ucb",), bench.fewer)
    bench.write(f"### Warm start from each of the other GPUs, 20 recurrences ({len(selected)} combinations)")
    bench.write()
    ratios = [ratio(comparison.contenders["gp-ucb"], comparison.clairvoyant, 20) for comparison in comparisons]
    bench.write(f"gp-ucb: {cell(ratios)}")
    bench.write()


def probes(bench: Bench, data: traces.Traces) -> None:
    """Write the table of probes: a few timed steps of each batch size."""
    bench.write(
        f"### With a probe after the first run: {PROBE_S:g} s per batch size, included in the cost, skipped if too long"
    )
    bench.write()
    rows: list[Row] = []
    for name, probe_s in (
        ("without a probe", None),
        ("with a probe", PROBE_S),
        ("with a probe that takes no time", NO_TIME_S),
    ):
        selected = [
            replace(case, scenario=replace(case.scenario, probe_s=probe_s))
            for case in cases(data, traces.JOBS.values())
        ]
        rows.append((name, selected, bench.compare(selected, ("gp-ucb",)), "gp-ucb"))
    bench.table(rows)


def main() -> None:
    """Run all parts, and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--only", nargs="*", help="names of the parts to run")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/policies.md")
    arguments = parser.parse_args()
    if arguments.write and arguments.only:
        parser.error("--write writes all tables into the docs; remove --only")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    data, bench, start_s = traces.read(ROOT / "benchmarks" / "traces"), Bench(arguments.seeds), time.monotonic()
    parts: dict[str, Callable[[], None]] = {
        "pairs": lambda: pairs(bench, data),
        "targets": lambda: targets(bench, data),
        "rules": lambda: rules(bench, data),
        "random": lambda: random_jobs(bench),
        "drift": lambda: changes(bench, data),
        "at-once": lambda: at_once(bench, data),
        "warm": lambda: warm_starts(bench, data),
        "probe": lambda: probes(bench, data),
    }
    for name, part in parts.items():
        if not arguments.only or name in arguments.only:
            part()
    bench.write(
        f"{arguments.seeds} seeds for the paper's jobs, {bench.fewer} for the rest; eta 0.5, beta 2; "
        f"{time.monotonic() - start_s:.0f} s on {os.cpu_count()} cores of "
        f"{processor()}, Python {platform.python_version()}, commit {commit}."
    )
    if arguments.write:
        before, _, rest = DOCS.read_text().partition(BEGIN)
        DOCS.write_text(before + "\n".join([BEGIN, "", *bench.text, END]) + rest.partition(END)[2])


def processor() -> str:
    """Return the name of the machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
