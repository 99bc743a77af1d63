"""What the policies cost on the paper's traces and beyond: the tables of docs/policies.md.

    python -m benchmarks.policies [--seeds 100] [--write]

Every table plays all of its contenders with the same luck. With `--write` the tables go into docs/policies.md.
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

from rich.progress import Progress

from backend.core.gp_ucb.belief import warm_beginning, warm_start
from backend.core.policies import condensed
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
HARDLY, MOSTLY = 0.25, 0.75
"""Shares of measured runs: with at most the first a batch size hardly ever converges, with the second mostly."""


@dataclass(frozen=True)
class Case:
    """A scenario with the paper's horizon for it."""

    gpu: str
    scenario: Scenario
    horizon: int


def cases(data: traces.Traces, jobs: Iterable[traces.TracedJob], **how: bool) -> list[Case]:
    """Every job on every GPU, for 100 recurrences or the paper's horizon, whichever is longer."""
    found = []
    for gpu in traces.GPUS:
        for job in jobs:
            one = traces.workload(data, gpu, job, **how)
            horizon = 2 * len(one.sizes) * traces.power_limits(data, gpu, job)
            found.append(Case(gpu, Scenario(one, max(100, horizon)), horizon))
    return found


def converging_share(record: SizeRecord, max_epochs: int) -> float:
    """Share of the known runs that reach the target in time."""
    return sum(epochs <= max_epochs for epochs in record.epochs) / len(record.epochs)


def other_targets(data: traces.Traces) -> list[Case]:
    """Jobs with other targets than the paper's, on which some batch size converges: every job and GPU in turn."""
    found = []
    for gpu in traces.GPUS:
        for job in traces.JOBS.values():
            for target in data.targets(job):
                if target != job.target:
                    one = traces.workload(data, gpu, replace(job, target=target))
                    one = replace(one, name=f"{one.name} to {target:g}")
                    horizon = 2 * len(one.sizes) * traces.power_limits(data, gpu, job)
                    if len(one.sizes) > 1 and cheapest_size(one) is not None:
                        found.append(Case(gpu, Scenario(one, max(100, horizon)), horizon))
    return found


def share_of_default(case: Case) -> float:
    """Share of the default's runs that converge."""
    spec = case.scenario.workload.spec
    return converging_share(case.scenario.workload.sizes[spec.default_batch_size], spec.max_epochs)


def share_of_best(case: Case) -> float:
    """Share of the cheapest batch size's runs that converge."""
    workload = case.scenario.workload
    return converging_share(workload.sizes[cheapest_size(workload) or 0], workload.spec.max_epochs)


def spread(cases: Sequence[Case], number: int) -> list[Case]:
    """So many of them, evenly."""
    return (
        [cases[round(place * (len(cases) - 1) / (number - 1))] for place in range(number)] if number > 1 else [*cases]
    )


def stretched(case: Case) -> Case:
    """The same with room for the epochs after the change, which comes in its middle."""
    workload = case.scenario.workload
    spec = replace(workload.spec, max_epochs=math.ceil(workload.spec.max_epochs * CHANGE.factor))
    recurrences = CHANGE.recurrence + AFTER_CHANGE
    return Case(case.gpu, Scenario(replace(workload, spec=spec), recurrences, drift=CHANGE), recurrences)


def warm(case: Case, donor: Case) -> Case:
    """The same, begun with what another GPU's job knows after fifty recurrences."""
    workload = case.scenario.workload
    theirs = replace(donor.scenario.workload, spec=replace(donor.scenario.workload.spec, policy="gp-ucb"))
    state = JobState(theirs.spec, ())
    for number, run in enumerate(simulate(theirs, 50, 1_000_000), 1):
        trial = Trial(
            *(number, run.batch_size, TrialType.MAB, TrialStatus.SUCCEEDED, run.converged),
            *(run.energy_j, run.time_s, run.epochs, 2 * number, 2 * number + 1),
        )
        state = condensed(replace(state, trials=(trial,)))
    spec = replace(workload.spec, policy="gp-ucb")
    name = f"{workload.name} from {donor.gpu}"
    scenario = Scenario(replace(workload, name=name, spec=spec), 20, past=warm_beginning(spec, warm_start(state, spec)))
    return Case(case.gpu, scenario, 20)


def cell(values: Sequence[float]) -> str:
    """Geometric mean, and the worst in brackets."""
    return f"{geometric_mean(values):.3f} ({max(values):.3g})"


Row = tuple[str, Sequence[Case], Sequence[Comparison], str]
"""Of a table: its name, its cases, what was played on them, and whose outcome it shows."""


class Bench:
    """Plays and prints, and keeps what it prints."""

    def __init__(self, seeds: int) -> None:
        self.seeds = seeds
        self.fewer = max(1, seeds // 5)
        self.text: list[str] = []

    def say(self, line: str = "") -> None:
        """Print a line of markdown."""
        print(line, flush=True)
        self.text.append(line)

    def play(self, cases: Sequence[Case], contenders: Sequence[str], seeds: int | None = None) -> list[Comparison]:
        """Compare on all cases."""
        scenarios = [case.scenario for case in cases]
        with Progress(transient=True) as progress:
            played = compare_all(scenarios, contenders, seeds or self.seeds)
            return list(progress.track(played, total=len(cases), description=", ".join(contenders)))

    def table(self, rows: Iterable[Row]) -> None:
        """Ratios to the clairvoyant."""
        self.say("| | 20 recurrences | 50 | 100 | horizon | failed tries | stuck | endless |")
        self.say("|---|---|---|---|---|---|---|---|")
        for name, cases, comparisons, who in rows:
            played = [(case, one, outcome_of(one, who)) for case, one in zip(cases, comparisons, strict=True)]
            known = [(case, one, outcome) for case, one, outcome in played if outcome is not None]
            columns = [
                cell([ratio(outcome, one.clairvoyant, until or case.horizon) for case, one, outcome in known])
                for until in (20, 50, 100, None)
            ]
            failed = sum(outcome.failed for _, _, outcome in known) / sum(len(o.cost_j) for _, _, o in known)
            stuck = sum(outcome.stuck for _, _, outcome in known)
            endless = sum(outcome.endless for _, _, outcome in known)
            self.say(f"| {name} | {' | '.join(columns)} | {failed:.1f} | {stuck} | {endless} |")
        self.say()


def outcome_of(one: Comparison, who: str) -> Outcome | None:
    """A contender's outcome, or that of the default or the floor."""
    return {"default": one.default, "floor": one.floor}.get(who) or one.contenders.get(who)


def chosen(
    cases: Sequence[Case], comparisons: Sequence[Comparison], gpus: Sequence[str]
) -> tuple[list[Case], list[Comparison]]:
    """Those on some GPUs."""
    kept = [(case, one) for case, one in zip(cases, comparisons, strict=True) if case.gpu in gpus]
    return [case for case, _ in kept], [one for _, one in kept]


def by_gpu(cases: Sequence[Case], comparisons: Sequence[Comparison], who: str) -> list[Row]:
    """A table's rows for the GPUs that the constants come from, and for the others."""
    return [
        (f"{who}, v100 and p100 (the constants' own)", *chosen(cases, comparisons, TUNED), who),
        (f"{who}, rtx6000 and a40 (held out)", *chosen(cases, comparisons, HELD_OUT), who),
    ]


def pairs(bench: Bench, data: traces.Traces) -> None:
    """The paper's jobs."""
    at_max = cases(data, traces.JOBS.values())
    played = bench.play(at_max, ("gp-ucb", "zeus"))
    unwise = bench.play(at_max, ("grid", "random"), bench.fewer)
    bench.say("### The paper's six workloads on four GPUs, power limit at its maximum")
    bench.say()
    rows: list[Row] = [(name, at_max, played, name) for name in ("gp-ucb", "zeus", "default", "floor")]
    rows += [(f"{name} ({bench.fewer} seeds)", at_max, unwise, name) for name in ("grid", "random")]
    for name in ("gp-ucb", "zeus"):
        rows += by_gpu(at_max, played, name)
    bench.table(rows)
    above = max(
        ratio(one.contenders["gp-ucb"], one.contenders["zeus"], until or case.horizon)
        for case, one in zip(at_max, played, strict=True)
        for until in (20, 50, 100, None)
    )
    bench.say(
        f"Where gp-ucb does worst beside zeus, on any pair and at any of these, it costs {above:.4f} times as much."
    )
    bench.say()
    appendix(bench, at_max, played)
    best = cases(data, traces.JOBS.values(), best_power_limit=True)
    bench.say("### The same with the cheapest power limit for every batch size")
    bench.say()
    played = bench.play(best, ("gp-ucb", "zeus"))
    bench.table([(name, best, played, name) for name in ("gp-ucb", "zeus", "default", "floor")])


def appendix(bench: Bench, cases: Sequence[Case], comparisons: Sequence[Comparison]) -> None:
    """Every pair by itself."""
    bench.say("<details><summary>Every pair</summary>")
    bench.say()
    bench.say("| pair | horizon | gp-ucb: 20, 50, 100, horizon | zeus: the same | default, horizon |")
    bench.say("|---|---|---|---|---|")
    for case, one in zip(cases, comparisons, strict=True):
        columns = [
            ", ".join(
                f"{ratio(one.contenders[who], one.clairvoyant, u or case.horizon):.3f}" for u in (20, 50, 100, None)
            )
            for who in ("gp-ucb", "zeus")
        ]
        default = (
            "never converges" if one.default is None else f"{ratio(one.default, one.clairvoyant, case.horizon):.3f}"
        )
        bench.say(f"| {case.scenario.workload.name} | {case.horizon} | {' | '.join(columns)} | {default} |")
    bench.say()
    bench.say("</details>")
    bench.say()


def targets(bench: Bench, data: traces.Traces) -> None:
    """Other targets than the paper's, also hopeless ones."""
    every = other_targets(data)
    sound = [case for case in every if share_of_best(case) >= MOSTLY]
    easy = [case for case in sound if share_of_default(case) > HARDLY]
    some = spread(easy, OTHER_TARGETS)
    for title, those in (
        (f"{len(some)} jobs with other targets (evenly from {len(easy)} whose best batch size mostly converges)", some),
        (
            "All jobs with other targets whose best batch size mostly converges and whose default hardly ever does",
            [c for c in sound if share_of_default(c) <= HARDLY],
        ),
        ("Jobs where no batch size mostly converges", [case for case in every if share_of_best(case) < MOSTLY]),
    ):
        bench.say(f"### {title}: {len(those)}")
        bench.say()
        played = bench.play(those, ("gp-ucb", "zeus"), bench.fewer)
        bench.table([*((name, those, played, name) for name in ("gp-ucb", "zeus")), *by_gpu(those, played, "gp-ucb")])


def random_jobs(bench: Bench) -> None:
    """Jobs that the traces do not hold."""
    those = [Case("", Scenario(synthetic.workload(number), 100), 100) for number in range(40)]
    those = [case for case in those if cheapest_size(case.scenario.workload) is not None]
    bench.say(f"### {len(those)} random jobs (`backend/simulator/synthetic.py`), 100 recurrences")
    bench.say()
    played = bench.play(those, ("gp-ucb", "zeus"), bench.fewer)
    bench.table([(name, those, played, name) for name in ("gp-ucb", "zeus", "floor")])


def changes(bench: Bench, data: traces.Traces) -> None:
    """Drift in mid-job."""
    those = [stretched(case) for case in cases(data, traces.JOBS.values())]
    bench.say(
        f"### All epochs times {CHANGE.factor:g} from recurrence {CHANGE.recurrence + 1} on "
        f"(max_epochs {CHANGE.factor:g} times as high throughout)"
    )
    bench.say()
    played = bench.play(those, ("gp-ucb", "zeus"), bench.fewer)
    bench.say(f"| | {AFTER_CHANGE} recurrences after the change | the first 20 of them | endless |")
    bench.say("|---|---|---|---|")
    for who in ("gp-ucb", "zeus"):
        columns = [
            cell(
                [
                    ratio(one.contenders[who], one.clairvoyant, CHANGE.recurrence + until, CHANGE.recurrence)
                    for one in played
                ]
            )
            for until in (AFTER_CHANGE, 20)
        ]
        endless = sum(one.contenders[who].endless for one in played)
        bench.say(f"| {who} | {' | '.join(columns)} | {endless} of {len(played) * bench.fewer} |")
    bench.say()


def at_once(bench: Bench, data: traces.Traces) -> None:
    """Several recurrences under way."""
    bench.say("### Several recurrences at once")
    bench.say()
    rows = []
    for concurrency in (2, 4, 8):
        those = [
            replace(case, scenario=replace(case.scenario, concurrency=concurrency))
            for case in cases(data, traces.JOBS.values())
        ]
        played = bench.play(those, ("gp-ucb", "zeus"), bench.fewer)
        rows += [(f"{who}, {concurrency} at once", those, played, who) for who in ("gp-ucb", "zeus")]
    bench.table(rows)


def warm_starts(bench: Bench, data: traces.Traces) -> None:
    """What another GPU's job is worth."""
    cold = cases(data, traces.JOBS.values())
    donors = {(case.gpu, case.scenario.workload.name.split("/")[0]): case for case in cold}
    those = [
        warm(case, donors[gpu, case.scenario.workload.name.split("/")[0]])
        for case in cold
        for gpu in traces.GPUS
        if gpu != case.gpu
    ]
    played = bench.play(those, ("gp-ucb",), bench.fewer)
    bench.say(f"### Warm start from each of the other GPUs, 20 recurrences ({len(those)} combinations)")
    bench.say()
    bench.say("gp-ucb: " + cell([ratio(one.contenders["gp-ucb"], one.clairvoyant, 20) for one in played]))
    bench.say()


def probes(bench: Bench, data: traces.Traces) -> None:
    """What it is worth to time a few steps of every batch size."""
    bench.say(f"### With a probe after the first run: {PROBE_S:g} s of every batch size, paid for, where that is short")
    bench.say()
    rows: list[Row] = []
    for name, probe_s in (("without", None), ("with", PROBE_S), ("with one that takes no time", NO_TIME_S)):
        those = [
            replace(case, scenario=replace(case.scenario, probe_s=probe_s))
            for case in cases(data, traces.JOBS.values())
        ]
        rows.append((name, those, bench.play(those, ("gp-ucb",)), "gp-ucb"))
    bench.table(rows)


def main() -> None:
    """Play all, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--only", nargs="*", help="names of parts")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/policies.md")
    arguments = parser.parse_args()
    if arguments.write and arguments.only:
        parser.error("--write puts all tables into the docs; leave --only out")
    data, bench, began = traces.read(ROOT / "benchmarks" / "traces"), Bench(arguments.seeds), time.monotonic()
    parts: dict[str, Callable[[], None]] = {
        "pairs": lambda: pairs(bench, data),
        "targets": lambda: targets(bench, data),
        "random": lambda: random_jobs(bench),
        "drift": lambda: changes(bench, data),
        "at-once": lambda: at_once(bench, data),
        "warm": lambda: warm_starts(bench, data),
        "probe": lambda: probes(bench, data),
    }
    for name, part in parts.items():
        if not arguments.only or name in arguments.only:
            part()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    bench.say(
        f"{arguments.seeds} seeds for the paper's jobs, {bench.fewer} for the rest; eta 0.5, beta 2; "
        f"{time.monotonic() - began:.0f} s on {os.cpu_count()} cores of "
        f"{processor()}, Python {platform.python_version()}, commit {commit}."
    )
    if arguments.write:
        before, _, rest = DOCS.read_text().partition(BEGIN)
        DOCS.write_text(before + "\n".join([BEGIN, "", *bench.text, END]) + rest.partition(END)[2])


def processor() -> str:
    """The machine's processor, as it names itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
