"""The figures of the admin page, as JSON for plotly. These functions turn plain data into plain data, without HTTP.

A figure is a list of traces and a layout. `figures.js` adds the colours that depend on light or dark mode.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from lightning_bso.wire import JobSummary, SizeBelief

from ...core.cost import cost, trial_cost
from ...core.savings import saved_by_trial, savings
from ...core.state import Spec, TrialStatus
from ...core.summary import SizeSummary
from ...usecases.dashboard import EndedTrial, History, ReportRecord

Figure = dict[str, Any]
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a000", "#7f7f7f")
"""Distinguishable with colour blindness (Okabe and Ito, 2008)."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "star", "hexagon", "pentagon", "triangle-down")
"""Symbols of converged runs. Batch sizes use the next symbol when the colours repeat."""
_UNITS = {"cost": " (J)", "energy": " (J)", "time": " (s)", "epochs": ""}


def costs(history: History) -> Figure:
    """The cost of each ended trial, coloured by batch size, with the cost bound of the next run.

    A cross marks a failed run, a ring a run without a verdict. Trials before the last reset are pale.
    """
    spec, traces = history.spec, []
    for index, size in enumerate(spec.batch_sizes):
        ended = [entry for entry in history.ended if entry.trial.batch_size == size]
        if ended:
            traces.append(
                {
                    "name": str(size),
                    "x": [entry.trial.number for entry in ended],
                    "y": [trial_cost(spec, entry.trial) for entry in ended],
                    "text": [entry.outcome_code for entry in ended],
                    "mode": "markers",
                    "marker": {
                        "color": COLOURS[index % len(COLOURS)],
                        "symbol": [_symbol(entry, index) for entry in ended],
                        "opacity": [1.0 if entry.exploration == history.exploration else 0.35 for entry in ended],
                        "size": 8,
                    },
                }
            )
    bound_j = history.belief.cost_bound
    if bound_j is not None and history.ended:
        numbers = [entry.trial.number for entry in history.ended]
        traces.append(_line("bound", [min(numbers), max(numbers) + 1], [bound_j, bound_j]))
    return _figure(traces, "trial", "cost (J)")


def beliefs(history: History) -> Figure:
    """The expected cost of each batch size with one standard deviation: tried, untried, ruled out, and next."""
    traces = []
    for state, symbol in {"tried": "circle", "not tried": "circle-open", "ruled out": "x"}.items():
        sizes = [
            size for size in history.belief.batch_sizes if size.expected_cost is not None and _state(size) == state
        ]
        if sizes:
            traces.append(
                {
                    "name": state,
                    "x": [str(size.batch_size) for size in sizes],
                    "y": [size.expected_cost for size in sizes],
                    "error_y": {"type": "data", "array": [size.standard_deviation for size in sizes], "visible": True},
                    "mode": "markers",
                    "marker": {"color": COLOURS[0], "symbol": symbol, "size": 10},
                }
            )
    next_sizes = [size for size in history.belief.batch_sizes if size.batch_size == history.belief.next_batch_size]
    if next_sizes and next_sizes[0].expected_cost is not None:
        traces.append(
            {
                "name": "next",
                "x": [str(next_sizes[0].batch_size)],
                "y": [next_sizes[0].expected_cost],
                "mode": "markers",
                "marker": {"color": COLOURS[5], "symbol": "circle-open", "size": 18, "line": {"width": 2}},
            }
        )
    figure = _figure(traces, "batch size", "expected cost (J)")
    figure["layout"]["xaxis"] |= {"type": "category", "categoryarray": [str(size) for size in history.spec.batch_sizes]}
    return figure


def energy_and_time(history: History) -> Figure:
    """Mean energy against mean time of each batch size's converged runs, the Pareto front, and the line of eta."""
    sizes = converged(history.summaries)
    traces: list[Figure] = []
    if sizes:
        traces.append(
            {
                "name": "batch sizes",
                "x": [size.mean_time_s for size in sizes],
                "y": [size.mean_energy_j for size in sizes],
                "text": [str(size.batch_size) for size in sizes],
                "mode": "markers+text",
                "textposition": "top center",
                "cliponaxis": False,
                "marker": {"color": COLOURS[0], "size": 10},
            }
        )
        front = pareto(sizes)
        traces.append(
            _line("Pareto front", [size.mean_time_s for size in front], [size.mean_energy_j for size in front])
        )
        times, energies = eta_line(history.spec, history.summaries, history.spec.eta_knob)
        traces.append(_line("equal cost", times, energies) | {"line": {"dash": "dash", "color": COLOURS[5]}})
    figure = _figure(traces, "mean time (s)", "mean energy (J)")
    figure["layout"]["yaxis"]["rangemode"] = "normal"  # an axis from 0 would hide small differences
    return figure


def cumulative_savings(history: History) -> Figure:
    """The savings after each trial, compared with always using the default and always the lowest mean."""
    spec, total, traces = history.spec, history.savings, []
    earlier = savings(spec, history.earlier)
    ended = [entry.trial for entry in history.ended]
    for name, against, colour in (
        ("against the default", total.against_default, COLOURS[2]),
        ("against the lowest mean", total.against_best, COLOURS[3]),
    ):
        if against is not None and total.recurrences:
            per_recurrence_j = (against.cost + total.spent.cost) / total.recurrences
            before_j = per_recurrence_j * earlier.recurrences - earlier.spent.cost_j
            values = saved_by_trial(spec, per_recurrence_j, before_j, ended)
            traces.append(_line(name, [trial.number for trial in ended], values) | {"line": {"color": colour}})
    return _figure(traces, "trial", "cost saved (J)")


def figures(history: History) -> dict[str, Figure]:
    """All figures of a job's page."""
    return {
        "costs": costs(history),
        "beliefs": beliefs(history),
        "energy": energy_and_time(history),
        "savings": cumulative_savings(history),
    } | ({"calibration": calibration(history)} if history.curves else {})


def calibration(history: History) -> Figure:
    """The metric of each run that the target is learnt from, by epoch, and the target once it is learnt."""
    traces = []
    for index, (number, curve) in enumerate(history.curves.items()):
        measured = [report for report in curve if report.metric is not None]
        points = _points(
            f"trial {number}", [report.epoch for report in measured], [report.metric for report in measured]
        )
        traces.append(points | {"marker": {"color": COLOURS[index % len(COLOURS)]}})
    if history.job.learnt_target is not None:
        last = max((report.epoch for curve in history.curves.values() for report in curve), default=0)
        traces.append(_line("target", [0, last], [history.job.learnt_target.target_metric] * 2))
    figure = _figure(traces, "epoch", "metric")
    figure["layout"]["xaxis"]["rangemode"] = "tozero"
    figure["layout"]["yaxis"]["rangemode"] = "normal"
    return figure


def progress(target_metric: float | None, reports: Sequence[ReportRecord]) -> dict[str, Figure]:
    """The figures of a trial's page: the metric with its target if that is known, and the cost, at each report."""
    times = [report.time_s for report in reports]
    measured = [report for report in reports if report.metric is not None]
    traces = [_points("metric", [report.time_s for report in measured], [report.metric for report in measured])]
    if times and target_metric is not None:
        traces.append(_line("target", [0.0, max(times)], [target_metric] * 2))
    metric = _figure(traces, "time (s)", "metric")
    metric["layout"]["yaxis"]["rangemode"] = "normal"
    cost_j = _figure([_points("cost", times, [report.cost_j for report in reports])], "time (s)", "cost (J)")
    for figure in (metric, cost_j):
        figure["layout"]["xaxis"]["rangemode"] = "tozero"
    return {"metric": metric, "cost": cost_j}


COMPARED = {"cost": "Mean cost", "energy": "Mean energy", "time": "Mean time", "epochs": "Mean epochs"}
"""The figures of a comparison."""


def comparison(jobs: Sequence[JobSummary]) -> dict[str, Figure]:
    """The means of each batch size's converged runs, for several jobs: the figures of `COMPARED`, over the same axis.

    Plotly renders markup in names, links included. So job ids are escaped.
    """
    return {name: _compared(name, jobs) for name in COMPARED}


def _compared(name: str, jobs: Sequence[JobSummary]) -> Figure:
    traces = []
    for index, job in enumerate(jobs):
        sizes = [size for size in job.batch_sizes if size.mean_cost is not None]
        values = [getattr(size, f"mean_{name}") for size in sizes]
        points = _points(escape(job.spec.job_id or ""), [size.batch_size for size in sizes], values)
        traces.append(points | {"marker": {"color": COLOURS[index], "symbol": SYMBOLS[index], "size": 10}})
    figure = _figure(traces, "batch size", f"mean {name}{_UNITS[name]}")
    shown = sorted({size for job in jobs for size in job.spec.batch_sizes})
    if shown:
        ends = [math.log10(shown[0]) - 0.05, math.log10(shown[-1]) + 0.05]
        figure["layout"]["xaxis"] |= {"type": "log", "tickvals": shown, "range": ends}
    return figure


def converged(summaries: Sequence[SizeSummary]) -> list[SizeSummary]:
    """The batch sizes with at least one converged run. Only these have means."""
    return [size for size in summaries if size.mean_cost_j is not None]


def pareto(sizes: Sequence[SizeSummary]) -> list[SizeSummary]:
    """The Pareto front by ascending time: the batch sizes that no other beats in both time and energy."""
    front: list[SizeSummary] = []
    for size in sorted(sizes, key=lambda size: (size.mean_time_s or 0.0, size.mean_energy_j or 0.0)):
        if not front or (size.mean_energy_j or 0.0) < (front[-1].mean_energy_j or 0.0):
            front.append(size)
    return front


def winner(spec: Spec, summaries: Sequence[SizeSummary], eta: float) -> SizeSummary | None:
    """The batch size with the lowest mean cost at another eta; None: no run has converged."""
    return min(converged(summaries), key=lambda size: _cost(spec, size, eta), default=None)


def eta_line(spec: Spec, summaries: Sequence[SizeSummary], eta: float) -> tuple[list[float], list[float]]:
    """The line of equal cost through the best batch size at an eta, within the range of all batch sizes.

    Returns:
        Times in seconds and energies in joules of the two ends.
    """
    best, sizes = winner(spec, summaries, eta), converged(summaries)
    if best is None:
        return [], []
    times, energies = ([getattr(size, name) or 0.0 for size in sizes] for name in ("mean_time_s", "mean_energy_j"))
    min_s, max_s, min_j, max_j = min(times), max(times), min(energies), max(energies)
    price = (1 - eta) * spec.max_power  # of a second, in joules
    if eta == 0:
        return [best.mean_time_s or 0.0] * 2, [min_j, max_j]
    cost_j = _cost(spec, best, eta)
    if price > 0:
        min_s, max_s = max(min_s, (cost_j - eta * max_j) / price), min(max_s, (cost_j - eta * min_j) / price)
    return [min_s, max_s], [(cost_j - price * time_s) / eta for time_s in (min_s, max_s)]


def _symbol(entry: EndedTrial, index: int) -> str:
    if entry.trial.status is not TrialStatus.SUCCEEDED or entry.trial.converged is None:
        return "circle-open"
    return SYMBOLS[index // len(COLOURS) % len(SYMBOLS)] if entry.trial.converged else "x"


def _state(size: SizeBelief) -> str:
    if size.ruled_out:
        return "ruled out"
    return "tried" if size.runs > 0 else "not tried"


def _cost(spec: Spec, size: SizeSummary, eta: float) -> float:
    return cost(size.mean_energy_j or 0.0, size.mean_time_s or 0.0, eta=eta, max_power_w=spec.max_power)


def _points(name: str, x: Sequence[Any], y: Sequence[Any]) -> Figure:
    return {"name": name, "x": list(x), "y": list(y), "mode": "lines+markers", "marker": {"color": COLOURS[0]}}


def _line(name: str, x: Sequence[Any], y: Sequence[Any]) -> Figure:
    return {"name": name, "x": list(x), "y": list(y), "mode": "lines", "line": {"dash": "dot", "color": "#7f7f7f"}}


def _figure(traces: list[Figure], x: str, y: str) -> Figure:
    layout = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}, "rangemode": "tozero"}}
    return {"data": traces, "layout": layout}
