"""The savings page: energy, money and carbon dioxide saved in a range of days, by team, by job and over time."""

from collections.abc import Mapping
from datetime import date, timedelta
from itertools import accumulate
from typing import Any

from flask import jsonify, render_template, request
from flask.typing import ResponseReturnValue

from lightning_bso.quantities import J_PER_WH, quantity

from ...core.savings import Usage
from ...database.queries import Days
from ...usecases import savings
from ...usecases.users import Role
from . import login, plots
from .blueprint import blueprint
from .login import PageUser
from .parameters import days as days_in

RANGES: Mapping[str, str] = {
    "month": "This month",
    "7d": "7 days",
    "30d": "30 days",
    "year": "This year",
    "all": "All time",
}
"""The ranges that need no date, by the value of the parameter `range`."""
_DAY_MS = 86_400_000
MAX_TEAMS = 50
"""Rows of the table of teams. The API has all of them."""


@blueprint.get("/savings/", endpoint="savings")
@login.requires(Role.VIEWER)
def show_savings(user: PageUser) -> ResponseReturnValue:
    """Show the page."""
    days, parameters, problem = _days()
    page = savings.page(user.actor, days)
    return render_template(
        "admin/savings.html",
        page=page,
        days=days,
        ranges=RANGES,
        parameters=parameters,
        problem=problem,
        max_teams=MAX_TEAMS,
    )


@blueprint.get("/savings/plots")
@login.requires(Role.VIEWER)
def savings_plots(user: PageUser) -> ResponseReturnValue:
    """The figure."""
    return jsonify(figures={"over-time": over_time(savings.by_day(user.actor, _days()[0]))})


def over_time(days: list[tuple[date, Usage]]) -> dict[str, Any]:
    """The energy saved on each day, and its sum since the range began."""
    saved_wh = [usage.energy_j / J_PER_WH for _, usage in days]
    x = [day.isoformat() for day, _ in days]
    sums = list(accumulate(saved_wh))
    on_day = [f"{day}: {quantity(saved, 'Wh')} saved by its runs." for day, saved in zip(x, saved_wh, strict=True)]
    so_far = [f"Up to {day}: {quantity(saved, 'Wh')} saved." for day, saved in zip(x, sums, strict=True)]
    bars = {"name": "on the day", "type": "bar", "width": 0.8 * _DAY_MS, "marker": {"color": "#56b4e9"}}
    line = {"name": "since the range began", "mode": "lines+markers", "marker": {"color": "#009e73"}}
    traces = [
        bars | {"x": x, "y": saved_wh, "text": on_day, "textposition": "none", "hovertemplate": plots.SENTENCE},
        line | {"x": x, "y": sums, "text": so_far, "hovertemplate": plots.SENTENCE},
    ]
    figure = plots.draw(traces if days else [], "day (UTC)", "energy saved (Wh)", "No run ended in this time.")
    figure["layout"]["xaxis"] |= {"type": "date", "tickformat": "%Y-%m-%d"}
    if days:
        first, last = days[0][0] - timedelta(days=1), days[-1][0] + timedelta(days=1)
        figure["layout"]["xaxis"]["range"] = [first.isoformat(), last.isoformat()]
        if last - first < timedelta(days=7):
            figure["layout"]["xaxis"]["dtick"] = _DAY_MS  # else there are ticks within a day
    return figure


def _days() -> tuple[Days, dict[str, str], str | None]:
    """Parse the range in the address. Returns its days, its parameters, and the problem if it is wrong."""
    problem = None
    try:
        days = days_in(request.args)
    except ValueError as error:
        problem, days = f"These days are not shown: {error}.", (None, None)
    if any(days):
        names = zip(("from", "to"), days, strict=True)
        return days, {name: day.isoformat() for name, day in names if day is not None}, problem
    name = request.args.get("range", "month")
    name = name if name in RANGES else "month"
    today = savings.today()
    first = {
        "month": today.replace(day=1),
        "7d": today - timedelta(days=6),
        "30d": today - timedelta(days=29),
        "year": today.replace(month=1, day=1),
    }
    return (first.get(name), None), {"range": name}, problem
