"""The results of a study as a table, as JSON, and as a plot of the regret."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from .study import LAST, Comparison, Outcome, geometric_mean, ratio, regret

ALL = 10**9
"""A horizon that includes all recurrences of any scenario."""
COLOURS = ("#1b6ca8", "#d1495b", "#6a994e", "#8d6a9f")


def horizons(comparison: Comparison, requested: Sequence[int]) -> list[int]:
    """Return the requested horizons that are shorter than the scenario, and the scenario's own length."""
    played = comparison.scenario.recurrences
    return sorted({horizon for horizon in requested if horizon < played} | {played})


def all_outcomes(comparison: Comparison) -> dict[str, Outcome]:
    """Return the outcomes of the contenders, the default (if it converges) and the floor, by name."""
    default = {} if comparison.default is None else {"default": comparison.default}
    return comparison.contenders | default | {"floor": comparison.floor}


def to_json(comparisons: Sequence[Comparison], requested: Sequence[int]) -> list[dict[str, Any]]:
    """Return the figures of the table. Costs are ratios to the clairvoyant's."""
    return [
        {
            "workload": comparison.scenario.workload.name,
            "recurrences": comparison.scenario.recurrences,
            "clairvoyant_mean_cost_j": float(comparison.clairvoyant.cost_j.mean()),
            "contenders": {
                name: {
                    "cost_against_clairvoyant": {
                        str(horizon): ratio(outcome, comparison.clairvoyant, horizon)
                        for horizon in horizons(comparison, requested)
                    },
                    "cost_against_default": (
                        None if comparison.default is None else ratio(outcome, comparison.default, ALL)
                    ),
                    "failed_launches_per_seed": outcome.failed / len(outcome.cost_j),
                    "seeds_stuck": outcome.stuck,
                    "seeds_endless": outcome.endless,
                    "last_energy_saving": saving(outcome.energy_j, comparison.default and comparison.default.energy_j),
                    "last_time_saving": saving(outcome.time_s, comparison.default and comparison.default.time_s),
                }
                for name, outcome in all_outcomes(comparison).items()
            },
        }
        for comparison in comparisons
    ]


def saving(own: Any, default: Any) -> float | None:
    """Return the share that is saved against the default over the last recurrences; None without a default."""
    return None if default is None else 1 - float(own[:, -LAST:].sum() / default[:, -LAST:].sum())


def table(comparisons: Sequence[Comparison], requested: Sequence[int]) -> Table:
    """Return a table with one row per contender.

    Ratios are geometric means over the workloads, with the worst workload in brackets.
    """
    title = "Total cost over a clairvoyant's" + (", geometric mean (worst)" if len(comparisons) > 1 else "")
    rich_table = Table(title=title, title_justify="left")
    common = [
        horizon for horizon in requested if all(horizon < comparison.scenario.recurrences for comparison in comparisons)
    ]
    rich_table.add_column("recurrences:")
    for heading in (*(f"first {horizon}" for horizon in common), "all", "over default's", "failed tries"):
        rich_table.add_column(heading, justify="right")
    for heading in (f"energy, last {LAST}", "time"):
        rich_table.add_column(heading, justify="right")
    for name in dict.fromkeys(name for comparison in comparisons for name in all_outcomes(comparison)):
        played = [
            (comparison, all_outcomes(comparison)[name])
            for comparison in comparisons
            if name in all_outcomes(comparison)
        ]
        columns = [
            [ratio(outcome, comparison.clairvoyant, horizon) for comparison, outcome in played]
            for horizon in (*common, ALL)
        ]
        with_default = [
            (comparison.default, outcome) for comparison, outcome in played if comparison.default is not None
        ]
        columns.append([ratio(outcome, default, ALL) for default, outcome in with_default])
        failed = sum(outcome.failed for _, outcome in played) / sum(len(outcome.cost_j) for _, outcome in played)
        stuck = sum(outcome.stuck for _, outcome in played)
        endless = sum(outcome.endless for _, outcome in played)
        remaining = [
            [1 - (saving(own.energy_j, default.energy_j) or 0) for default, own in with_default],
            [1 - (saving(own.time_s, default.time_s) or 0) for default, own in with_default],
        ]
        rich_table.add_row(
            name,
            *map(_ratios, columns),
            f"{failed:.1f}" + (f", {stuck} stuck" if stuck else "") + (f", {endless} endless" if endless else ""),
            *(f"{geometric_mean(column) - 1:+.1%}" if column else "–" for column in remaining),
        )
    return rich_table


def _ratios(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = f"{geometric_mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({max(values):.4g})"


def plot(comparisons: Sequence[Comparison], file: Path) -> None:
    """Draw the cumulative regret by recurrence as one HTML page: the mean and the middle 80 % of the seeds."""
    from plotly import graph_objects
    from plotly.subplots import make_subplots

    columns = min(len(comparisons), 3)
    figure = make_subplots(
        rows=math.ceil(len(comparisons) / columns),
        cols=columns,
        subplot_titles=[comparison.scenario.workload.name for comparison in comparisons],
    )
    for i, comparison in enumerate(comparisons):
        cell = {"row": i // columns + 1, "col": i % columns + 1}
        x = np.arange(1, comparison.scenario.recurrences + 1)
        for colour, (name, outcome) in zip(COLOURS, comparison.contenders.items(), strict=False):
            curves = regret(outcome, comparison.clairvoyant) / comparison.clairvoyant.cost_j.mean()
            low, high = np.quantile(curves, (0.1, 0.9), axis=0)
            line = {"name": name, "legendgroup": name, "showlegend": i == 0, "line": {"color": colour}}
            figure.add_trace(graph_objects.Scatter(x=x, y=curves.mean(axis=0), **line), **cell)
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
                **cell,
            )
    figure.update_xaxes(title="recurrence")
    figure.update_yaxes(title="regret, in runs of the clairvoyant")
    figure.update_layout(
        title="Cumulative cost above a clairvoyant's",
        template="plotly_white",
        height=380 * math.ceil(len(comparisons) / columns),
    )
    figure.write_html(file, include_plotlyjs=True)
