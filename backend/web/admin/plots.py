"""The figures of the admin page, as JSON for plotly. These functions turn plain data into plain data, without HTTP.

A figure is a list of traces and a layout. `figures.js` adds the colours that depend on light or dark mode.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from lightning_bso.quantities import count, duration, joules, number
from lightning_bso.wire import JobSummary, SizeBelief

from ...core import run_status
from ...core.cost import cost, trial_cost
from ...core.savings import saved_by_trial, savings
from ...core.state import Report, Spec, TrialStatus
from ...core.summary import SizeSummary
from ...usecases.dashboard import EndedTrial, History, ReportRecord
from .formatting import utc

Figure = dict[str, Any]
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a000", "#7f7f7f")
"""Distinguishable with colour blindness (Okabe and Ito, 2008)."""
SENTENCE = "%{text}<extra></extra>"
"""What the pointer shows at a point: its text, without the name of its trace."""
TIME_UNITS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))
LABEL_WIDTH, LABEL_HEIGHT = 0.02, 0.07
"""Shares of a figure that a character of a label takes, and a line."""
FEW = 10
"""Up to so many numbers, an axis has a tick at each."""
MUCH = 1000
"""Costs that differ by more than this factor are shown on a logarithmic axis."""
MAX_POINTS = 200
"""Points of a curve of the metric. Of longer ones, every second, third, … report is shown."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "star", "hexagon", "pentagon", "triangle-down")
"""Symbols of converged runs. Batch sizes use the next symbol when the colours repeat."""
_UNITS = {"cost": " (J)", "energy": " (J)", "time": " (s)", "epochs": ""}


def costs(history: History) -> Figure:
    """The cost of each ended trial, coloured by batch size, with the cost bound of the next run.

    A cross marks a failed run, a ring a run without a verdict. Trials before the last reset are pale.
    """
    spec = history.spec
    traces: list[Figure] = []
    of_size = {size: [entry for entry in history.ended if entry.trial.batch_size == size] for size in spec.batch_sizes}
    is_crowded = sum(map(bool, of_size.values())) > len(COLOURS)
    for index, (size, ended) in enumerate(of_size.items()):
        if ended:
            colour = {"color": [math.log2(size)] * len(ended), "coloraxis": "coloraxis"}
            traces.append(
                {
                    "name": str(size),
                    "x": [entry.trial.number for entry in ended],
                    "y": [trial_cost(spec, entry.trial) for entry in ended],
                    "text": [_story(spec, entry) for entry in ended],
                    "hovertemplate": SENTENCE,
                    "customdata": [entry.trial.number for entry in ended],
                    "meta": {"times": [_iso(entry.ended_at) for entry in ended]},
                    "mode": "markers",
                    "showlegend": not is_crowded,
                    "marker": (colour if is_crowded else {"color": COLOURS[index % len(COLOURS)]})
                    | {
                        "symbol": [_symbol(entry, 0 if is_crowded else index) for entry in ended],
                        "opacity": [1.0 if entry.exploration == history.exploration else 0.35 for entry in ended],
                        "size": 8,
                    },
                }
            )
    bound_j = history.belief.cost_bound
    spread = [value for trace in traces for value in trace["y"] if value > 0]
    if bound_j is not None and history.ended:
        numbers = [entry.trial.number for entry in history.ended]
        times = [_iso(at) for at in (history.ended[0].ended_at, history.ended[-1].ended_at)]
        line = _line("bound", [min(numbers), max(numbers) + 1], [bound_j, bound_j])
        sentences = [f"The next run is stopped above {joules(bound_j)}."] * len(line["x"])
        traces.append(_says(line, sentences) | {"meta": {"times": times}})
    figure = draw(traces, "trial", "cost (J)", "No run has ended yet.")
    if is_crowded:
        figure["layout"]["coloraxis"] = _size_scale(spec.batch_sizes)
    return _by_number(_logarithmic(figure, spread))


def beliefs(history: History) -> Figure:
    """The expected cost of each batch size with one standard deviation: tried, untried, ruled out, and next."""
    traces = []
    known = [size for size in history.belief.batch_sizes if size.expected_cost is not None]
    for state, symbol in {"tried": "circle", "not tried": "circle-open", "ruled out": "x"}.items():
        sizes = [size for size in known if _state(size) == state]
        if sizes:
            traces.append(
                {
                    "name": state,
                    "x": [str(size.batch_size) for size in sizes],
                    "y": [size.expected_cost for size in sizes],
                    "text": [_belief(size) for size in sizes],
                    "hovertemplate": SENTENCE,
                    "error_y": {"type": "data", "array": [size.standard_deviation for size in sizes], "visible": True},
                    "mode": "markers",
                    "marker": {"color": COLOURS[0], "symbol": symbol, "size": 10},
                }
            )
    upcoming = [size for size in known if size.batch_size == history.belief.next_batch_size]
    if upcoming:
        traces.append(
            {
                "name": "next",
                "x": [str(upcoming[0].batch_size)],
                "y": [upcoming[0].expected_cost],
                "hoverinfo": "skip",
                "mode": "markers",
                "marker": {"color": COLOURS[5], "symbol": "circle-open", "size": 18, "line": {"width": 2}},
            }
        )
    figure = draw(traces, "batch size", "expected cost (J)", "The policy expects no costs before a run has ended.")
    names = [str(size) for size in history.spec.batch_sizes]
    figure["layout"]["xaxis"] |= {"type": "category", "categoryarray": names, "range": [-0.5, len(names) - 0.5]}
    return _logarithmic(figure, [size.expected_cost for size in known if size.expected_cost])


def energy_and_time(history: History) -> Figure:
    """Mean energy against mean time of each batch size's converged runs, the Pareto front, and the line of eta.

    Times are in the unit that `layout.meta` names, and energies in joules.
    """
    sizes = converged(history.summaries)
    times, energies = [size.mean_time_s or 0.0 for size in sizes], [size.mean_energy_j or 0.0 for size in sizes]
    unit, unit_s = _time_unit(times)
    traces: list[Figure] = []
    if sizes:
        front = pareto(sizes)
        first = [size.batch_size for size in front] + [history.spec.default_batch_size]
        line_s, line_j = eta_line(history.spec, history.summaries, history.spec.eta_knob)
        traces = [
            {
                "name": "batch sizes",
                "x": [time_s / unit_s for time_s in times],
                "y": energies,
                "text": labels(sizes, first),
                "ids": [str(size.batch_size) for size in sizes],
                "hovertext": [_mean(history.spec, size) for size in sizes],
                "hovertemplate": "%{hovertext}<extra></extra>",
                "mode": "markers+text",
                "textposition": "top center",
                "cliponaxis": False,
                "marker": {"color": COLOURS[0], "size": 10},
            },
            _line(
                "Pareto front",
                [(size.mean_time_s or 0.0) / unit_s for size in front],
                [size.mean_energy_j for size in front],
            )
            | {"hoverinfo": "skip"},
            _line("equal cost", [time_s / unit_s for time_s in line_s], line_j)
            | {"line": {"dash": "dash", "color": COLOURS[5]}, "hoverinfo": "skip"},
        ]
    figure = draw(traces, f"mean time ({unit})", "mean energy (J)", "No run has converged since the last reset.")
    figure["layout"]["meta"] = {"seconds": unit_s}
    if sizes:  # axes from 0 would hide small differences
        figure["layout"]["xaxis"]["range"] = [limit / unit_s for limit in limits(times)]
        figure["layout"]["yaxis"]["range"] = list(limits(energies))
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
            traces.append(
                _line(name, [trial.number for trial in ended], values)
                | {
                    "text": [
                        f"After trial {trial.number}, {joules(abs(value))} were {'saved' if value >= 0 else 'lost'} "
                        f"{name}."
                        for trial, value in zip(ended, values, strict=True)
                    ],
                    "hovertemplate": SENTENCE,
                    "customdata": [trial.number for trial in ended],
                    "meta": {"times": [_iso(entry.ended_at) for entry in history.ended]},
                    "mode": "lines" if len(ended) > 1 else "markers",
                    "line": {"color": colour},
                    "marker": {"color": colour},
                }
            )
    why = "Unknown: no batch size has converged."
    return _by_number(draw(traces, "trial", "cost saved (J)", why))


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
    learnt = history.job.learnt_target
    target = None if learnt is None else learnt.target_metric
    return _curves(history.curves, target, "No run has ended yet that the target is learnt from.")


def curves(trials: Mapping[int, Sequence[Report]], target_metric: float | None) -> Figure:
    """The metric of several trials by epoch, and the target if it is known."""
    return _curves(trials, target_metric, "None of these trials has reported a metric yet.")


def progress(target_metric: float | None, reports: Sequence[ReportRecord]) -> dict[str, Figure]:
    """The figures of a trial's page: the metric with its target if that is known, and the cost, at each report."""
    unit, unit_s = _time_unit([report.time_s for report in reports])
    measured = [report for report in reports if report.metric is not None]
    traces = [
        _says(
            _points("metric", [report.time_s / unit_s for report in measured], [report.metric for report in measured]),
            [
                f"The metric is {number(report.metric)} after {duration(report.time_s)}, in epoch {report.epoch}."
                for report in measured
            ],
        )
    ] * bool(measured)
    if reports and target_metric is not None:
        traces.append(_target([0.0, max(report.time_s for report in reports) / unit_s], target_metric))
    metric = draw(traces, f"time ({unit})", "metric", "The run has not reported a metric yet.")
    metric["layout"]["yaxis"]["rangemode"] = "normal"
    costs = [
        _says(
            _points("cost", [report.time_s / unit_s for report in reports], [report.cost_j for report in reports]),
            [
                f"The run has cost {joules(report.cost_j)} after {duration(report.time_s)}, in epoch {report.epoch}."
                for report in reports
            ],
        )
    ] * bool(reports)
    cost_j = draw(costs, f"time ({unit})", "cost (J)", "The run has not reported yet.")
    for figure in (metric, cost_j):
        figure["layout"]["xaxis"]["rangemode"] = "tozero"
    return {"metric": metric, "cost": cost_j}


COMPARED = {"cost": "Mean cost", "energy": "Mean energy", "time": "Mean time", "epochs": "Mean epochs"}
"""The figures of a comparison."""


def comparison(jobs: Sequence[JobSummary]) -> dict[str, Figure]:
    """The means of each batch size's converged runs, for several jobs: the figures of `COMPARED`, over the same axis.

    Plotly renders markup in names, links included. So job ids are escaped, without quotes, which Plotly leaves escaped.
    """
    return {name: _compared(name, jobs) for name in COMPARED}


def _compared(name: str, jobs: Sequence[JobSummary]) -> Figure:
    traces = []
    for index, job in enumerate(jobs):
        sizes = [size for size in job.batch_sizes if size.mean_cost is not None]
        values = [getattr(size, f"mean_{name}") for size in sizes]
        job_id = escape(job.spec.job_id or "", quote=False)
        sentences = [
            f"Batch size {size.batch_size} of {job_id}: mean {name} {_in_words(name, value)} of "
            f"{count(size.converged, 'run')} that converged."
            for size, value in zip(sizes, values, strict=True)
        ]
        points = _says(_points(job_id, [size.batch_size for size in sizes], values), sentences)
        traces.append(points | {"marker": {"color": COLOURS[index], "symbol": SYMBOLS[index], "size": 10}})
    title = f"mean {name}{_UNITS[name]}"
    compared = draw(traces, "batch size", title, "No run of these jobs has converged since the last reset.")
    shown = sorted({size for job in jobs for size in job.spec.batch_sizes})
    if shown:
        ends = [math.log10(shown[0]) - 0.05, math.log10(shown[-1]) + 0.05]
        compared["layout"]["xaxis"] |= {"type": "log", "tickvals": shown, "range": ends}
    return compared


def _in_words(name: str, value: float) -> str:
    return duration(value) if name == "time" else number(value) if name == "epochs" else joules(value)


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
    """The line of equal cost through the best batch size at an eta, within the limits of the figure.

    Returns:
        Times in seconds and energies in joules of the two ends.
    """
    best, sizes = winner(spec, summaries, eta), converged(summaries)
    if best is None:
        return [], []
    times, energies = ([getattr(size, name) or 0.0 for size in sizes] for name in ("mean_time_s", "mean_energy_j"))
    (min_s, max_s), (min_j, max_j) = limits(times), limits(energies)
    price = (1 - eta) * spec.max_power  # of a second, in joules
    if eta == 0:
        return [best.mean_time_s or 0.0] * 2, [min_j, max_j]
    cost_j = _cost(spec, best, eta)
    if price > 0:
        min_s, max_s = max(min_s, (cost_j - eta * max_j) / price), min(max_s, (cost_j - eta * min_j) / price)
    return [min_s, max_s], [(cost_j - price * time_s) / eta for time_s in (min_s, max_s)]


def labels(sizes: Sequence[SizeSummary], first: Sequence[int]) -> list[str]:
    """Label the points of `energy_and_time`, but leave out labels that would lie on others.

    Args:
        sizes: the batch sizes.
        first: the batch sizes that get a label before others do.
    """
    places = list(
        zip(
            _shares([size.mean_time_s or 0.0 for size in sizes]),
            _shares([size.mean_energy_j or 0.0 for size in sizes]),
            strict=True,
        )
    )
    labels = [""] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: sizes[i].batch_size not in first):
        text = str(sizes[i].batch_size)
        if all(
            abs(places[i][0] - places[j][0]) > LABEL_WIDTH * max(len(text), len(labels[j]))
            or abs(places[i][1] - places[j][1]) > LABEL_HEIGHT
            for j in range(len(sizes))
            if labels[j]
        ):
            labels[i] = text
    return labels


def limits(values: Sequence[float]) -> tuple[float, float]:
    """The limits of an axis: the values with a margin, which is a tenth of the value where all are the same."""
    low, high = min(values), max(values)
    margin = 0.1 * (high - low or abs(high) or 1.0)
    return low - margin, high + margin


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


def _story(spec: Spec, entry: EndedTrial) -> str:
    trial = entry.trial
    outcome = run_status.in_words(entry.outcome_code) if entry.outcome_code else "ended"
    return (
        f"Trial {trial.number} with batch size {trial.batch_size} ({escape(outcome)})<br>cost "
        f"{joules(trial_cost(spec, trial))}: {joules(trial.energy_j)} in {duration(trial.time_s)}, "
        f"{count(trial.epochs, 'epoch')}."
    )


def _belief(size: SizeBelief) -> str:
    runs = "It was not tried yet" if size.runs == 0 else f"It was tried in {count(size.runs, 'run')}"
    text = (
        f"A run with batch size {size.batch_size} that converges<br>is expected to cost {joules(size.expected_cost)} ± "
        f"{joules(size.standard_deviation)}.<br>{runs}"
    )
    return f"{text}, and is ruled out." if size.ruled_out else f"{text}."


def _mean(spec: Spec, size: SizeSummary) -> str:
    return (
        f"A run with batch size {size.batch_size} uses {joules(size.mean_energy_j)}<br>in "
        f"{duration(size.mean_time_s)} and costs {joules(_cost(spec, size, spec.eta_knob))},<br>on average of "
        f"{count(size.converged, 'converged run')}."
    )


def _shares(values: Sequence[float]) -> list[float]:
    """Where values lie between the limits of their axis, from 0 to 1."""
    low, high = limits(values)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]


def _curves(trials: Mapping[int, Sequence[Report]], target_metric: float | None, why_empty: str) -> Figure:
    traces = []
    for index, (trial, curve) in enumerate(trials.items()):
        measured = [report for report in curve if report.metric is not None]
        measured = measured[:: -(-len(measured) // MAX_POINTS) or 1]
        if measured:
            epochs, metrics = [report.epoch for report in measured], [report.metric for report in measured]
            sentences = [
                f"In epoch {report.epoch}, the metric of trial {trial} is {number(report.metric)}."
                for report in measured
            ]
            points = _says(_points(f"trial {trial}", epochs, metrics), sentences)
            points["customdata"] = [trial] * len(measured)
            points["marker"] = {"color": COLOURS[index % len(COLOURS)], "symbol": SYMBOLS[index % len(SYMBOLS)]}
            traces.append(points)
    last = max((x for trace in traces for x in trace["x"]), default=0)
    if traces and target_metric is not None:
        traces.append(_target([0, last], target_metric))
    figure = draw(traces, "epoch", "metric", why_empty)
    figure["layout"]["xaxis"] |= {"rangemode": "tozero"} | ({"dtick": 1} if last <= FEW else {})
    figure["layout"]["yaxis"]["rangemode"] = "normal"
    return figure


def _target(x: Sequence[float], target_metric: float) -> Figure:
    return _says(_line("target", x, [target_metric] * 2), [f"The target is {number(target_metric)}."] * 2)


def _by_number(figure: Figure) -> Figure:
    """Give an axis of trial numbers whole ticks."""
    numbers = [x for trace in figure["data"] for x in trace["x"]]
    if numbers and max(numbers) - min(numbers) <= FEW:
        figure["layout"]["xaxis"]["dtick"] = 1
    return figure


def _logarithmic(figure: Figure, values: Sequence[float]) -> Figure:
    """Make the axis of costs logarithmic if they differ so much that the small ones could not be told apart."""
    if values and max(values) > MUCH * min(values):
        figure["layout"]["yaxis"] |= {"type": "log"}
    return figure


def _size_scale(sizes: Sequence[int]) -> dict[str, Any]:
    """A scale of colours for more batch sizes than there are colours. It takes the place of the legend."""
    low, high = math.log2(sizes[0]), math.log2(sizes[-1])
    places = [low + (high - low) * i / 4 for i in range(5)]
    marked = sorted({min(sizes, key=lambda size: abs(math.log2(size) - place)) for place in places})
    return {
        "colorscale": [[0, COLOURS[0]], [0.5, COLOURS[3]], [1, COLOURS[1]]],
        "cmin": low,
        "cmax": high,
        "colorbar": {
            "title": {"text": "batch size"},
            "tickvals": [math.log2(size) for size in marked],
            "ticktext": [str(size) for size in marked],
            "thickness": 12,
        },
    }


def _time_unit(seconds: Sequence[float]) -> tuple[str, float]:
    """The largest unit of time of which the longest duration has at least two, and its seconds."""
    longest = max(seconds, default=0.0)
    return next((unit for unit in TIME_UNITS if longest >= 2 * unit[1]), TIME_UNITS[-1])


def _iso(at: datetime | None) -> str | None:
    return utc(at) or None


def _points(name: str, x: Sequence[Any], y: Sequence[Any]) -> Figure:
    return {"name": name, "x": list(x), "y": list(y), "mode": "lines+markers", "marker": {"color": COLOURS[0]}}


def _line(name: str, x: Sequence[Any], y: Sequence[Any]) -> Figure:
    return {"name": name, "x": list(x), "y": list(y), "mode": "lines", "line": {"dash": "dot", "color": "#7f7f7f"}}


def _says(trace: Figure, sentences: Iterable[str]) -> Figure:
    """A trace that shows a sentence under the pointer at each of its points."""
    return trace | {"text": list(sentences), "hovertemplate": SENTENCE}


def draw(traces: list[Figure], x: str, y: str, why_empty: str) -> Figure:
    """A figure with titles at its axes, or with the reason why there is nothing to show."""
    layout: dict[str, Any] = {"xaxis": _axis(x), "yaxis": _axis(y) | {"rangemode": "tozero"}}
    if not any(trace["x"] for trace in traces):
        layout["annotations"] = [
            {
                "text": why_empty,
                "showarrow": False,
                "xref": "paper",
                "yref": "paper",
                "x": 0.5,
                "y": 0.5,
                "font": {"size": 14},
            }
        ]
        for axis in ("xaxis", "yaxis"):
            layout[axis]["visible"] = False
    elif not any(value for trace in traces for value in trace["y"]):
        layout["yaxis"]["tickvals"] = [0]
    return {"data": traces, "layout": layout}


def _axis(title: str) -> dict[str, Any]:
    """An axis. One in joules or watt-hours has them with SI prefixes at its ticks, not in its title."""
    for unit in ("J", "Wh"):
        if title.endswith(f" ({unit})"):
            text = title.removesuffix(f" ({unit})")
            return {"title": {"text": text, "standoff": 8}, "tickformat": "~s", "ticksuffix": unit}
    return {"title": {"text": title, "standoff": 8}}
