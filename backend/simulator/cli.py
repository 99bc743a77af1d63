"""The command `python -m backend simulate`: it makes scenarios from options, and prints the result of a study."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import Progress

from ..core.simulate import Workload
from . import recorded, report, synthetic, traces
from .study import CONTENDERS, Comparison, Drift, NothingToCompare, Scenario, compare_all
from .tables import TracesUnusable

HORIZONS = (20, 50, 100)
DEFAULT_RECURRENCES = 100
NAMES = "NAME[,NAME...]"
SOURCES = (("trials",), ("synthetic",), ("folder", "gpu", "workload", "target", "power_limit"))
"""The parameters of each source of workloads. Parameters of different sources exclude each other."""
MIN_DRIFT_FACTOR, MAX_DRIFT_FACTOR = 1e-9, 1e9


def _names(allowed: tuple[str, ...]) -> Callable[[click.Context, click.Parameter, str], tuple[str, ...]]:
    """Return an option's callback that reads names, separated by commas, or "all"."""

    def read(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
        names = allowed if value == "all" else tuple(value.split(","))
        for name in names:
            if name not in allowed:
                raise click.BadParameter(f"{name!r} is not one of {', '.join(allowed)}, all")
        return names

    return read


def _drift(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Drift | None:
    """Read FROM:FACTOR."""
    if value is None:
        return None
    try:
        since, _, factor = value.partition(":")
        drift = Drift(int(since), float(factor))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} does not have the form FROM:FACTOR, as in 60:2.5") from error
    if not MIN_DRIFT_FACTOR <= drift.factor <= MAX_DRIFT_FACTOR:
        limits = f"from {MIN_DRIFT_FACTOR:g} to {MAX_DRIFT_FACTOR:g}"
        raise click.BadParameter(f"the factor {factor} is not a number {limits}, as in 60:2.5")
    return drift


def _share(_context: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
    """Reject NaN, which click's ranges accept."""
    if value is not None and math.isnan(value):
        raise click.BadParameter(f"{value} is not a number from 0 to 1")
    return value


def _output(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    """Reject a file that cannot be written, before the simulation starts."""
    if value is not None and not value.parent.is_dir():
        raise click.BadParameter(f"there is no folder {value.parent}; create it first")
    if value is not None and not os.access(value if value.exists() else value.parent, os.W_OK):
        raise click.BadParameter(f"{value} cannot be written")
    return value


@click.command()
@click.option(
    "--traces",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("benchmarks/traces"),
    show_default=True,
    help="Folder of measured trainings.",
)
@click.option(
    "--policy",
    callback=_names(CONTENDERS),
    default="gp-ucb,zeus",
    show_default=True,
    metavar=NAMES,
    help=f"Policies and baselines to compare: {', '.join(CONTENDERS)}, or all.",
)
@click.option(
    "--gpu",
    callback=_names(traces.GPUS),
    default="v100",
    show_default=True,
    metavar=NAMES,
    help=f"Measured GPUs: {', '.join(traces.GPUS)}, or all.",
)
@click.option(
    "--workload",
    callback=_names(tuple(traces.JOBS)),
    default="all",
    show_default=True,
    metavar=NAMES,
    help=f"Measured trainings: {', '.join(traces.JOBS)}, or all.",
)
@click.option("--target", type=float, help="Target metric, one that was measured; default: the paper's.")
@click.option(
    "--power-limit",
    type=click.Choice(["max", "best"]),
    default="max",
    show_default=True,
    help="The highest power limit, or for each batch size the one with the cheapest epoch.",
)
@click.option("--synthetic", type=click.IntRange(1), help="Instead of measured trainings: this many random jobs.")
@click.option(
    "--trials",
    type=click.Path(path_type=Path),
    help="Instead of measured trainings: a job's own trials, a file from lightning-bso export.",
)
@click.option(
    "--eta",
    type=click.FloatRange(0, 1),
    callback=_share,
    help="Weight of energy against time; default: 0.5, or with --trials the job's.",
)
@click.option(
    "--recurrences",
    type=click.IntRange(1),
    help="Recurrences; default: the paper's 2 * batch sizes * power limits, or 100 with --synthetic and --trials.",
)
@click.option("--seeds", type=click.IntRange(1), default=20, show_default=True, help="Repetitions with other luck.")
@click.option(
    "--concurrency", type=click.IntRange(1), default=1, show_default=True, help="Recurrences at the same time."
)
@click.option(
    "--drift",
    callback=_drift,
    metavar="FROM:FACTOR",
    help="From recurrence FROM on (the first is 0), multiply the epochs to the target by FACTOR: 60:2.5.",
)
@click.option("--jobs", type=click.IntRange(1), help="Processes; default: one per core.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_output,
    help="Write the figures to this file, as JSON.",
)
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_output,
    help="Write a plot of the regret to this file, as HTML.",
)
@click.pass_context
def simulate(
    context: click.Context,
    folder: Path,
    policy: tuple[str, ...],
    gpu: tuple[str, ...],
    workload: tuple[str, ...],
    target: float | None,
    power_limit: str,
    synthetic: int | None,
    trials: Path | None,
    eta: float | None,
    recurrences: int | None,
    seeds: int,
    concurrency: int,
    drift: Drift | None,
    jobs: int | None,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Estimate what policies would cost on measured, random or recorded trainings."""
    _check_one_source(context)
    if plot_file is not None and plot_file.suffix != ".html":
        raise click.BadParameter(f"{plot_file} must end in .html: the plot is a page", param_hint="--plot")
    console = Console()
    console.width = max(console.width, 120)  # the table stays readable when the output goes to a file
    try:
        if trials is not None:
            job = recorded.read(trials, eta=eta)
            workloads = [(job.workload, DEFAULT_RECURRENCES)]
            for remark in job.remarks:
                click.echo(f"{trials}: {remark}")
        elif synthetic is not None:
            workloads = [(_synthetic(number, eta), DEFAULT_RECURRENCES) for number in range(synthetic)]
        else:
            workloads = _traced(folder, gpu, workload, target, eta, best_power_limit=power_limit == "best")
    except TracesUnusable as error:
        raise click.ClickException(str(error)) from error
    scenarios = [Scenario(played, recurrences or horizon, concurrency, drift) for played, horizon in workloads]
    comparisons: list[Comparison] = []
    try:
        with Progress(console=console, transient=True) as progress:
            results = compare_all(scenarios, policy, seeds, jobs)
            comparisons.extend(progress.track(results, total=len(scenarios), description="workloads"))
    except NothingToCompare as error:
        raise click.ClickException(str(error)) from error
    total = sum(scenario.recurrences for scenario in scenarios)
    counts = ((len(scenarios), "workload"), (seeds, "seed"), (total, "recurrence"))
    console.print(", ".join(f"{count} {noun}{'s' * (count != 1)}" for count, noun in counts))
    console.print(report.table(comparisons, HORIZONS))
    if json_file is not None:
        figures = json.dumps(report.to_json(comparisons, HORIZONS), indent=1) + "\n"
        _write(json_file, lambda file: file.write_text(figures))
    if plot_file is not None:
        _write(plot_file, lambda file: report.plot(comparisons, file))


def _write(file: Path, write: Callable[[Path], object]) -> None:
    try:
        write(file)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error


def _check_one_source(context: click.Context) -> None:
    """Reject options that would be ignored, because they belong to another source of workloads."""
    options = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    used = [
        [options[name] for name in source if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        for source in SOURCES
    ]
    first, *others = [names[0] for names in used if names] or [""]
    if others:
        raise click.UsageError(f"{first} and {others[0]} exclude each other; use only one of them")


def _traced(
    folder: Path,
    gpus: tuple[str, ...],
    workloads: tuple[str, ...],
    target: float | None,
    eta: float | None,
    *,
    best_power_limit: bool,
) -> list[tuple[Workload, int]]:
    """Return the measured workloads, each with the paper's horizon."""
    data = traces.read(folder, gpus)
    workloads_and_horizons = []
    for gpu in gpus:
        for name in workloads:
            job = traces.JOBS[name] if target is None else replace(traces.JOBS[name], target=target)
            knob = 0.5 if eta is None else eta
            traced = traces.workload(data, gpu, job, eta=knob, best_power_limit=best_power_limit)
            workloads_and_horizons.append((traced, 2 * len(traced.sizes) * traces.power_limits(data, gpu, job)))
    return workloads_and_horizons


def _synthetic(number: int, eta: float | None) -> Workload:
    return synthetic.workload(number, eta=0.5 if eta is None else eta)
