"""The command `python -m backend simulate`."""

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

from backend.core.simulate import Workload
from backend.simulator import recorded, report, synthetic, traces
from backend.simulator.study import CONTENDERS, Comparison, Drift, NothingToCompare, Scenario, compare_all
from backend.simulator.tables import TracesUnusable

HORIZONS = (20, 50, 100)
DEFAULT_RECURRENCES = 100
NAMES = "NAME[,NAME...]"
KINDS = (("trials",), ("synthetic",), ("folder", "gpu", "workload", "target", "power_limit"))
"""Parameters that say what is played; those of one kind exclude those of the others."""
DRIFT_FACTORS = (1e-9, 1e9)


def _names(known: tuple[str, ...]) -> Callable[[click.Context, click.Parameter, str], tuple[str, ...]]:
    """Reads some of a set of names, with commas between them."""

    def read(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
        names = known if value == "all" else tuple(value.split(","))
        for name in names:
            if name not in known:
                raise click.BadParameter(f"{name!r} is not one of {', '.join(known)}, all")
        return names

    return read


def _drift(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Drift | None:
    """Reads FROM:FACTOR."""
    if value is None:
        return None
    try:
        since, _, times = value.partition(":")
        drift = Drift(int(since), float(times))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not of the form 60:2.5") from error
    least, most = DRIFT_FACTORS
    if not least <= drift.factor <= most:
        raise click.BadParameter(f"{times} is no factor from {least:g} to {most:g}, as in 60:2.5")
    return drift


def _share(_context: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
    """Refuses NaN, which no range of click's does."""
    if value is not None and math.isnan(value):
        raise click.BadParameter(f"{value} is no number from 0 to 1")
    return value


def _output(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    """Refuses at once what could not be written after the simulation."""
    if value is not None and not value.parent.is_dir():
        raise click.BadParameter(f"there is no folder {value.parent}")
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
    help=f"Who plays: {', '.join(CONTENDERS)}.",
)
@click.option(
    "--gpu",
    callback=_names(traces.GPUS),
    default="v100",
    show_default=True,
    metavar=NAMES,
    help=f"{', '.join(traces.GPUS)}, or all.",
)
@click.option(
    "--workload",
    callback=_names(tuple(traces.JOBS)),
    default="all",
    show_default=True,
    metavar=NAMES,
    help=f"{', '.join(traces.JOBS)}, or all.",
)
@click.option("--target", type=float, help="Another target metric than the paper's, of those measured.")
@click.option("--power-limit", type=click.Choice(["max", "best"]), default="max", show_default=True)
@click.option("--synthetic", type=click.IntRange(1), help="Instead: so many random jobs.")
@click.option(
    "--trials",
    type=click.Path(path_type=Path),
    help="Instead: a job's own trials, from lightning-bso export.",
)
@click.option(
    "--eta", type=click.FloatRange(0, 1), callback=_share, help="Weight of energy against time; else 0.5, or the job's."
)
@click.option(
    "--recurrences",
    type=click.IntRange(1),
    help="Trainings to be done; else the paper's 2 * batch sizes * power limits, and 100 where there are none.",
)
@click.option("--seeds", type=click.IntRange(1), default=20, show_default=True)
@click.option("--concurrency", type=click.IntRange(1), default=1, show_default=True, help="Recurrences at once.")
@click.option(
    "--drift",
    callback=_drift,
    metavar="FROM:FACTOR",
    help="From a recurrence on, multiply the epochs to the target: 60:2.5.",
)
@click.option("--jobs", type=click.IntRange(1), help="Processes; else one per core.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_output,
    help="Write the figures there.",
)
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_output,
    help="Draw the regret there, as HTML.",
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
    """What policies would cost on measured, random or recorded trainings."""
    _check_one_kind(context)
    if plot_file is not None and plot_file.suffix != ".html":
        raise click.BadParameter(f"{plot_file} must end in .html: the plot is a page", param_hint="--plot")
    console = Console()
    console.width = max(console.width, 120)  # of a table that is to be read, also in a file
    try:
        if trials is not None:
            job = recorded.read(trials, eta=eta)
            found = [(job.workload, DEFAULT_RECURRENCES)]
            for remark in job.remarks:
                click.echo(f"{trials}: {remark}")
        elif synthetic is not None:
            found = [(_synthetic(number, eta), DEFAULT_RECURRENCES) for number in range(synthetic)]
        else:
            found = _traced(folder, gpu, workload, target, eta, best_power_limit=power_limit == "best")
    except TracesUnusable as error:
        raise click.ClickException(str(error)) from error
    scenarios = [Scenario(one, recurrences or horizon, concurrency, drift) for one, horizon in found]
    comparisons: list[Comparison] = []
    try:
        with Progress(console=console, transient=True) as progress:
            played = compare_all(scenarios, policy, seeds, jobs)
            comparisons.extend(progress.track(played, total=len(scenarios), description="workloads"))
    except NothingToCompare as error:
        raise click.ClickException(str(error)) from error
    recurring = sum(one.recurrences for one in scenarios)
    counts = ((len(scenarios), "workload"), (seeds, "seed"), (recurring, "recurrence"))
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


def _check_one_kind(context: click.Context) -> None:
    """Refuse options that would be ignored."""
    options = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    given = [
        [options[name] for name in kind if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        for kind in KINDS
    ]
    first, *others = [names[0] for names in given if names] or [""]
    if others:
        raise click.UsageError(f"{first} and {others[0]} exclude each other; leave one out")


def _traced(
    folder: Path,
    gpus: tuple[str, ...],
    workloads: tuple[str, ...],
    target: float | None,
    eta: float | None,
    *,
    best_power_limit: bool,
) -> list[tuple[Workload, int]]:
    data = traces.read(folder, gpus)
    found = []
    for gpu in gpus:
        for name in workloads:
            job = traces.JOBS[name] if target is None else replace(traces.JOBS[name], target=target)
            knob = 0.5 if eta is None else eta
            one = traces.workload(data, gpu, job, eta=knob, best_power_limit=best_power_limit)
            found.append((one, 2 * len(one.sizes) * traces.power_limits(data, gpu, job)))
    return found


def _synthetic(number: int, eta: float | None) -> Workload:
    return synthetic.workload(number, eta=0.5 if eta is None else eta)
