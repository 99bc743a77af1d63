"""What a study found, for people and for programs: a table, JSON, and a plot of the regret."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from backend.simulator.study import LAST, Comparison, Outcome, geometric_mean, ratio, regret

ALL = 10**9
"""More recurrences than anyone plays."""
COLOURS = ("#1b6ca8", "#d1495b", "#6a994e", "#8d6a9f")


def horizons(comparison: Comparison, wanted: Sequence[int]) -> list[int]:
    """Those of the wanted numbers of recurrences that were played, and how many were."""
    played = comparison.scenario.recurrences
    return sorted({horizon for horizon in wanted if horizon < played} | {played})


def everyone(comparison: Comparison) -> dict[str, Outcome]:
    """All that were played, by name."""
    fixed = {"floor": comparison.floor}
    return comparison.contenders | ({} if comparison.default is None else {"default": comparison.default}) | fixed


def to_json(comparisons: Sequence[Comparison], wanted: Sequence[int]) -> list[dict[str, Any]]:
    """The table's figures; costs are ratios to the clairvoyant's."""
    return [
        {
            "workload": one.scenario.workload.name,
            "recurrences": one.scenario.recurrences,
            "clairvoyant_mean_cost_j": float(one.clairvoyant.cost_j.mean()),
            "contenders": {
                name: {
                    "cost_against_clairvoyant": {
                        str(horizon): ratio(outcome, one.clairvoyant, horizon) for horizon in horizons(one, wanted)
                    },
                    "cost_against_default": None if one.default is None else ratio(outcome, one.default, ALL),
                    "failed_launches_per_seed": outcome.failed / len(outcome.cost_j),
                    "seeds_stuck": outcome.stuck,
                    "seeds_endless": outcome.endless,
                    "last_energy_saving": saving(outcome.energy_j, one.default and one.default.energy_j),
                    "last_time_saving": saving(outcome.time_s, one.default and one.default.time_s),
                }
                for name, outcome in everyone(one).items()
            },
        }
        for one in comparisons
    ]


def saving(ours: Any, default: Any) -> float | None:
    """Share saved against the default over the last recurrences; None without a default."""
    return None if default is None else 1 - float(ours[:, -LAST:].sum() / default[:, -LAST:].sum())


def table(comparisons: Sequence[Comparison], wanted: Sequence[int]) -> Table:
    """Contenders in rows; ratios are geometric means over the workloads, the worst one in brackets."""
    title = "Total cost over a clairvoyant's" + (", geometric mean (worst)" if len(comparisons) > 1 else "")
    found = Table(title=title, title_justify="left")
    shown = [horizon for horizon in wanted if all(horizon < one.scenario.recurrences for one in comparisons)]
    found.add_column("recurrences:")
    for heading in (*(f"first {horizon}" for horizon in shown), "all", "over default's", "failed tries"):
        found.add_column(heading, justify="right")
    for heading in (f"energy, last {LAST}", "time"):
        found.add_column(heading, justify="right")
    for name in dict.fromkeys(name for one in comparisons for name in everyone(one)):
        played = [(one, everyone(one)[name]) for one in comparisons if name in everyone(one)]
        columns = [[ratio(outcome, one.clairvoyant, horizon) for one, outcome in played] for horizon in (*shown, ALL)]
        with_default = [(one.default, outcome) for one, outcome in played if one.default is not None]
        columns.append([ratio(outcome, default, ALL) for default, outcome in with_default])
        failed = sum(outcome.failed for _, outcome in played) / sum(len(outcome.cost_j) for _, outcome in played)
        stuck, endless = (sum(getattr(outcome, what) for _, outcome in played) for what in ("stuck", "endless"))
        left = [
            [1 - (saving(ours.energy_j, default.energy_j) or 0) for default, ours in with_default],
            [1 - (saving(ours.time_s, default.time_s) or 0) for default, ours in with_default],
        ]
        found.add_row(
            name,
            *map(_ratios, columns),
            f"{failed:.1f}" + (f", {stuck} stuck" if stuck else "") + (f", {endless} endless" if endless else ""),
            *(f"{geometric_mean(column) - 1:+.1%}" if column else "–" for column in left),
        )
    return found


def _ratios(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = f"{geometric_mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({max(values):.4g})"


def plot(comparisons: Sequence[Comparison], file: Path) -> None:
    """Draw cumulative regret by recurrence, mean and the middle 80 % of the seeds, as one page of HTML."""
    from plotly import graph_objects
    from plotly.subplots import make_subplots

    columns = min(len(comparisons), 3)
    figure = make_subplots(
        rows=math.ceil(len(comparisons) / columns),
        cols=columns,
        subplot_titles=[one.scenario.workload.name for one in comparisons],
    )
    for place, one in enumerate(comparisons):
        where = {"row": place // columns + 1, "col": place % columns + 1}
        x = np.arange(1, one.scenario.recurrences + 1)
        for colour, (name, outcome) in zip(COLOURS, one.contenders.items(), strict=False):
            curves = regret(outcome, one.clairvoyant) / one.clairvoyant.cost_j.mean()
            low, high = np.quantile(curves, (0.1, 0.9), axis=0)
            line = {"name": name, "legendgroup": name, "showlegend": place == 0, "line": {"color": colour}}
            figure.add_trace(graph_objects.Scatter(x=x, y=curves.mean(axis=0), **line), **where)
            figure.add_trace(
                graph_objects.Scatter(
                    x=np.concatenate([x, x[::-1]]),
                    y=np.concatenate([high, low[::-1]]),
                    fill="toself",
                    fillcolor=colour,
                    opacity=0.15,
                    line={"width": 0},
                    hoverinfo="skip",
                    legendgroup=name,
                    showlegend=False,
                ),
                **where,
            )
    figure.update_xaxes(title="recurrence")
    figure.update_yaxes(title="regret, in runs of the clairvoyant")
    figure.update_layout(
        title="Cumulative cost above a clairvoyant's",
        template="plotly_white",
        height=380 * math.ceil(len(comparisons) / columns),
    )
    figure.write_html(file, include_plotlyjs=True)
