"""The figures of the admin page, as plotly's JSON: plain data in, plain data out, nothing of the web.

Each is a list of traces and what its axes say; colours that depend on light or dark are the page's affair.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

from backend.core.cost import cost, trial_cost
from backend.core.savings import saved_by_trial, savings
from backend.core.state import Spec, TrialStatus
from backend.core.summary import SizeSummary
from backend.usecases.dashboard import EndedTrial, History, ReportRecord
from lightning_bso.wire import JobSummary, SizeBelief

Figure = dict[str, Any]
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a000", "#7f7f7f")
"""Told apart by the colour-blind too (Okabe and Ito, 2008)."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "star", "hexagon", "pentagon", "triangle-down")
"""Of converged runs; the next one when the colours begin again."""


def costs(history: History) -> Figure:
    """The cost of each ended trial, coloured by batch size, with the bound of runs given out now.

    A cross is a run that failed, a ring one that ended without a verdict; those from before the last reset are pale.
    """
    spec, traces = history.spec, []
    for at, size in enumerate(spec.batch_sizes):
        ended = [one for one in history.ended if one.trial.batch_size == size]
        if ended:
            traces.append(
                {
                    "name": str(size),
                    "x": [one.trial.number for one in ended],
                    "y": [trial_cost(spec, one.trial) for one in ended],
                    "text": [one.outcome_code for one in ended],
                    "mode": "markers",
                    "marker": {
                        "color": COLOURS[at % len(COLOURS)],
                        "symbol": [_symbol(one, at) for one in ended],
                        "opacity": [1.0 if one.exploration == history.exploration else 0.35 for one in ended],
                        "size": 8,
                    },
                }
            )
    bound_j = history.belief.cost_bound
    if bound_j is not None and history.ended:
        numbers = [one.trial.number for one in history.ended]
        traces.append(_line("bound", [min(numbers), max(numbers) + 1], [bound_j, bound_j]))
    return _figure(traces, "trial", "cost (J)")


def beliefs(history: History) -> Figure:
    """The expected cost of each batch size with one standard deviation: tried, untried, ruled out, and next."""
    traces = []
    kinds = {"tried": "circle", "not tried": "circle-open", "ruled out": "x"}
    for name, symbol in kinds.items():
        sizes = [one for one in history.belief.batch_sizes if one.expected_cost is not None and _kind(one) == name]
        if sizes:
            traces.append(
                {
                    "name": name,
                    "x": [str(one.batch_size) for one in sizes],
                    "y": [one.expected_cost for one in sizes],
                    "error_y": {"type": "data", "array": [one.standard_deviation for one in sizes], "visible": True},
                    "mode": "markers",
                    "marker": {"color": COLOURS[0], "symbol": symbol, "size": 10},
                }
            )
    following = [one for one in history.belief.batch_sizes if one.batch_size == history.belief.next_batch_size]
    if following and following[0].expected_cost is not None:
        traces.append(
            {
                "name": "next",
                "x": [str(following[0].batch_size)],
                "y": [following[0].expected_cost],
                "mode": "markers",
                "marker": {"color": COLOURS[5], "symbol": "circle-open", "size": 18, "line": {"width": 2}},
            }
        )
    figure = _figure(traces, "batch size", "expected cost (J)")
    figure["layout"]["xaxis"] |= {"type": "category", "categoryarray": [str(size) for size in history.spec.batch_sizes]}
    return figure


def energy_and_time(history: History) -> Figure:
    """Mean energy against mean time of each batch size's converged runs, the Pareto front, and the line of eta."""
    known = _known(history.summaries)
    traces: list[Figure] = []
    if known:
        traces.append(
            {
                "name": "batch sizes",
                "x": [one.mean_time_s for one in known],
                "y": [one.mean_energy_j for one in known],
                "text": [str(one.batch_size) for one in known],
                "mode": "markers+text",
                "textposition": "top center",
                "cliponaxis": False,
                "marker": {"color": COLOURS[0], "size": 10},
            }
        )
        front = pareto(known)
        traces.append(_line("Pareto front", [one.mean_time_s for one in front], [one.mean_energy_j for one in front]))
        times, energies = eta_line(history.spec, history.summaries, history.spec.eta_knob)
        traces.append(_line("equal cost", times, energies) | {"line": {"dash": "dash", "color": COLOURS[5]}})
    figure = _figure(traces, "mean time (s)", "mean energy (J)")
    figure["layout"]["yaxis"]["rangemode"] = "normal"  # from 0, batch sizes that differ by little lie on each other
    return figure


def cumulative_savings(history: History) -> Figure:
    """What has been saved after each trial, against always the default and always the best batch size."""
    spec, told, traces = history.spec, history.savings, []
    earlier = savings(spec, history.before)
    ended = [one.trial for one in history.ended]
    for name, against, colour in (
        ("against the default", told.against_default, COLOURS[2]),
        ("against always the best", told.against_best, COLOURS[3]),
    ):
        if against is not None and told.recurrences:
            per_recurrence_j = (against.cost + told.spent.cost) / told.recurrences
            before_j = per_recurrence_j * earlier.recurrences - earlier.spent.cost_j
            values = saved_by_trial(spec, per_recurrence_j, before_j, ended)
            traces.append(_line(name, [trial.number for trial in ended], values) | {"line": {"color": colour}})
    return _figure(traces, "trial", "cost saved (J)")


def figures(history: History) -> dict[str, Figure]:
    """All figures of a job."""
    return {
        "costs": costs(history),
        "beliefs": beliefs(history),
        "energy": energy_and_time(history),
        "savings": cumulative_savings(history),
    }


def progress(target_metric: float, reports: Sequence[ReportRecord]) -> dict[str, Figure]:
    """A trial report by report: its metric with the target, and its cost."""
    times = [one.time_s for one in reports]
    measured = [one for one in reports if one.metric is not None]
    metric = [_points("metric", [one.time_s for one in measured], [one.metric for one in measured])]
    if times:
        metric.append(_line("target", [0.0, max(times)], [target_metric] * 2))
    shown = _figure(metric, "time (s)", "metric")
    shown["layout"]["yaxis"]["rangemode"] = "normal"
    cost_j = _figure([_points("cost", times, [one.cost_j for one in reports])], "time (s)", "cost (J)")
    for figure in (shown, cost_j):
        figure["layout"]["xaxis"]["rangemode"] = "tozero"
    return {"metric": shown, "cost": cost_j}


def comparison(jobs: Sequence[JobSummary]) -> dict[str, Figure]:
    """The mean cost of each batch size's converged runs, of several jobs.

    Plotly takes names for markup, links among it, so a job's id is escaped.
    """
    traces = []
    for at, job in enumerate(jobs):
        known = [one for one in job.batch_sizes if one.mean_cost is not None]
        points = _points(
            escape(job.spec.job_id or ""), [one.batch_size for one in known], [one.mean_cost for one in known]
        )
        traces.append(points | {"marker": {"color": COLOURS[at], "symbol": SYMBOLS[at], "size": 10}})
    figure = _figure(traces, "batch size", "mean cost (J)")
    figure["layout"]["xaxis"] |= {"type": "log", "tickvals": sorted({x for one in traces for x in one["x"]})}
    return {"comparison": figure}


def pareto(known: Sequence[SizeSummary]) -> list[SizeSummary]:
    """The batch sizes of which no other takes both less time and less energy, by rising time."""
    front: list[SizeSummary] = []
    for one in sorted(known, key=lambda one: (one.mean_time_s or 0.0, one.mean_energy_j or 0.0)):
        if not front or (one.mean_energy_j or 0.0) < (front[-1].mean_energy_j or 0.0):
            front.append(one)
    return front


def winner(spec: Spec, summaries: Sequence[SizeSummary], eta: float) -> SizeSummary | None:
    """The batch size with the lowest mean cost at another trade-off; None: nothing has converged."""
    return min(_known(summaries), key=lambda one: _cost(spec, one, eta), default=None)


def eta_line(spec: Spec, summaries: Sequence[SizeSummary], eta: float) -> tuple[list[float], list[float]]:
    """Times and energies of equal cost with the best batch size at an eta, within the range of the batch sizes."""
    best, known = winner(spec, summaries, eta), _known(summaries)
    if best is None:
        return [], []
    times, energies = ([getattr(one, name) or 0.0 for one in known] for name in ("mean_time_s", "mean_energy_j"))
    least_s, most_s, least_j, most_j = min(times), max(times), min(energies), max(energies)
    price = (1 - eta) * spec.max_power  # of a second, in joules
    if eta == 0:
        return [best.mean_time_s or 0.0] * 2, [least_j, most_j]
    cost_j = _cost(spec, best, eta)
    if price > 0:
        least_s, most_s = max(least_s, (cost_j - eta * most_j) / price), min(most_s, (cost_j - eta * least_j) / price)
    return [least_s, most_s], [(cost_j - price * time_s) / eta for time_s in (least_s, most_s)]


def _symbol(one: EndedTrial, at: int) -> str:
    if one.trial.status is not TrialStatus.SUCCEEDED:
        return "circle-open"
    return SYMBOLS[at // len(COLOURS) % len(SYMBOLS)] if one.trial.converged else "x"


def _kind(one: SizeBelief) -> str:
    if one.ruled_out:
        return "ruled out"
    return "tried" if one.runs > 0 else "not tried"


def _cost(spec: Spec, one: SizeSummary, eta: float) -> float:
    return cost(one.mean_energy_j or 0.0, one.mean_time_s or 0.0, eta=eta, max_power_w=spec.max_power)


def _known(summaries: Sequence[SizeSummary]) -> list[SizeSummary]:
    return [one for one in summaries if one.mean_cost_j is not None]


def _points(name: str, x: Sequence[Any], y: Sequence[Any]) -> Figure:
    return {"name": name, "x": list(x), "y": list(y), "mode": "lines+markers", "marker": {"color": COLOURS[0]}}


def _line(name: str, x: Sequence[Any], y: Sequence[Any]) -> Figure:
    return {"name": name, "x": list(x), "y": list(y), "mode": "lines", "line": {"dash": "dot", "color": "#7f7f7f"}}


def _figure(traces: list[Figure], x: str, y: str) -> Figure:
    layout = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}, "rangemode": "tozero"}}
    return {"data": traces, "layout": layout}
