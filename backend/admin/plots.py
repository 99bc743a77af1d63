"""The figures of a job's page, as plotly's JSON: plain data in, plain data out, nothing of the web.

Each is a list of traces and what its axes say; colours that depend on light or dark are the page's affair.
"""

from collections.abc import Sequence
from typing import Any

from backend.core.cost import cost, trial_cost
from backend.core.savings import saved_by_trial, savings
from backend.core.state import Spec
from backend.core.summary import SizeSummary
from backend.queries import History

Figure = dict[str, Any]
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a000", "#7f7f7f")
"""Told apart by the colour-blind too (Okabe and Ito, 2008)."""


def costs(history: History) -> Figure:
    """The cost of each ended trial, coloured by batch size, failures marked, with the bound of runs given out now."""
    spec, traces = history.spec, []
    for at, size in enumerate(spec.batch_sizes):
        trials = [trial for trial in history.ended if trial.batch_size == size]
        if trials:
            traces.append(
                {
                    "name": str(size),
                    "x": [trial.number for trial in trials],
                    "y": [trial_cost(spec, trial) for trial in trials],
                    "text": ["converged" if trial.converged else "failed" for trial in trials],
                    "mode": "markers",
                    "marker": {
                        "color": COLOURS[at % len(COLOURS)],
                        "symbol": ["circle" if trial.converged else "x" for trial in trials],
                        "size": 8,
                    },
                }
            )
    bound_j = history.belief.cost_bound
    if bound_j is not None and history.ended:
        numbers = [trial.number for trial in history.ended]
        traces.append(_line("bound", [min(numbers), max(numbers) + 1], [bound_j, bound_j]))
    return _figure(traces, "trial", "cost (J)")


def beliefs(history: History) -> Figure:
    """The expected cost of each batch size with one standard deviation, tried, untried and next."""
    traces = []
    for name, symbol, wanted in (("tried", "circle", True), ("not tried", "circle-open", False)):
        sizes = [
            one for one in history.belief.batch_sizes if one.expected_cost is not None and (one.runs > 0) == wanted
        ]
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
                "marker": {"color": COLOURS[0], "size": 10},
            }
        )
        front = pareto(known)
        traces.append(_line("Pareto front", [one.mean_time_s for one in front], [one.mean_energy_j for one in front]))
        times, energies = eta_line(history.spec, history.summaries, history.spec.eta_knob)
        traces.append(_line("equal cost", times, energies) | {"line": {"dash": "dash", "color": COLOURS[5]}})
    return _figure(traces, "mean time (s)", "mean energy (J)")


def cumulative_savings(history: History) -> Figure:
    """What has been saved after each trial, against always the default and always the best batch size."""
    spec, told, traces = history.spec, history.savings, []
    earlier = savings(spec, history.before)
    numbers = [trial.number for trial in history.ended]
    for name, against, colour in (
        ("against the default", told.against_default, COLOURS[2]),
        ("against always the best", told.against_best, COLOURS[3]),
    ):
        if against is not None and told.recurrences:
            per_recurrence_j = (against.cost + told.spent.cost) / told.recurrences
            before_j = per_recurrence_j * earlier.recurrences - earlier.spent.cost_j
            values = saved_by_trial(spec, per_recurrence_j, before_j, history.ended)
            traces.append(_line(name, numbers, values) | {"line": {"color": colour}})
    return _figure(traces, "trial", "cost saved (J)")


def figures(history: History) -> dict[str, Figure]:
    """All figures of a job."""
    return {
        "costs": costs(history),
        "beliefs": beliefs(history),
        "energy": energy_and_time(history),
        "savings": cumulative_savings(history),
    }


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
    """Times and energies of equal cost with the best batch size at an eta, over the plot's range."""
    best, known = winner(spec, summaries, eta), _known(summaries)
    if best is None:
        return [], []
    cost_j = _cost(spec, best, eta)
    if eta == 0:
        energies = [min(one.mean_energy_j or 0.0 for one in known), max(one.mean_energy_j or 0.0 for one in known)]
        return [best.mean_time_s or 0.0] * 2, energies
    times = [min(one.mean_time_s or 0.0 for one in known), max(one.mean_time_s or 0.0 for one in known)]
    return times, [(cost_j - (1 - eta) * spec.max_power * time_s) / eta for time_s in times]


def _cost(spec: Spec, one: SizeSummary, eta: float) -> float:
    return cost(one.mean_energy_j or 0.0, one.mean_time_s or 0.0, eta=eta, max_power_w=spec.max_power)


def _known(summaries: Sequence[SizeSummary]) -> list[SizeSummary]:
    return [one for one in summaries if one.mean_cost_j is not None]


def _line(name: str, x: Sequence[Any], y: Sequence[Any]) -> Figure:
    return {"name": name, "x": list(x), "y": list(y), "mode": "lines", "line": {"dash": "dot", "color": "#7f7f7f"}}


def _figure(traces: list[Figure], x: str, y: str) -> Figure:
    layout = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}, "rangemode": "tozero"}}
    return {"data": traces, "layout": layout}
