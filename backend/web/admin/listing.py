"""Show a list as pages and as CSV: search, filters, order and links.

The three lists themselves are in `lists.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from flask import redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from ...core import periods
from ...usecases import lists
from ...usecases.audit import Actor
from ...usecases.lists import ListedTable, ListQuery
from .. import files
from .parameters import days

EXPORT_CHUNK = 1000
"""Rows of an export that are loaded at a time."""
MAX_SEARCH_LENGTH = 500
"""Every word of a search is a condition, and databases limit the conditions of a query."""
PERIOD_NAMES = ("when", "from", "to", "zone")
"""Parameters of the filter by date: a named period, days, and the reader's time zone."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a list."""

    name: str
    """Value of the parameter `sort`."""
    label: str
    export: Callable[[Any], Any]
    """Return a row's value for the CSV."""
    show: Callable[[Any], Any] | None = None
    """Return a row's value for the page; None: the same as for the CSV."""
    csv_label: str | None = None
    """Heading of the CSV; None: the label."""

    def cell(self, row: Any) -> Any:
        """A row's value on the page."""
        value = (self.show or self.export)(row)
        return "" if value is None else value


@dataclass(frozen=True, slots=True)
class Filter:
    """A field of the form. The list shows only rows with the field's value."""

    name: str
    """Name of the parameter."""
    label: str
    options: Mapping[str, str] | None = None
    """The possible values and their labels; None: any text."""
    parse: Callable[[str], Any] = str
    """Turn a text into a value of the database. Raises ValueError with the problem."""

    def value(self, text: str) -> Any:
        """Check and parse a text.

        Raises:
            ValueError: no row can have this value.
        """
        if self.options is not None and text not in self.options:
            raise ValueError(f"{text!r} is not one of {', '.join(self.options)}")
        return self.parse(text)


Shortcut = tuple[str, Mapping[str, str]]
"""The text of a link to a part of a list, and its parameters."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A list. Its CSV has the endpoint of its page, followed by `_csv`."""

    endpoint: str
    title: str
    table: ListedTable
    load: Callable[[Sequence[int]], Sequence[Any]]
    """Load rows by their numbers, in order."""
    cells: Sequence[Sequence[Column]]
    """The columns. Those of a cell are below one another on the page, and side by side in the CSV."""
    filters: Sequence[Filter]
    searched: str
    """Names of the searched columns, for the search field."""
    dated: str
    """What the filter by date is about, as its label."""
    shortcuts: Callable[[Actor], Sequence[Shortcut]] = lambda _by: ()
    """Return links to parts of the list."""

    @property
    def columns(self) -> Sequence[Column]:
        """All columns, in the order of the CSV."""
        return [column for cell in self.cells for column in cell]

    def page(self, by: Actor) -> ResponseReturnValue:
        """Answer with a page of the list, as far as an actor may see it."""
        parameters = self._parameters()
        if not all(parameters.values()):
            return _without_empty_parameters(self.endpoint, parameters)
        query, problems = self._query(parameters)
        if problems:
            page = lists.Page(total=0, number=0, pages=1, ids=())
        else:
            page = lists.find_page(self.table, query, request.args.get("page", 0, type=int), by)

        def link(**changes: Any) -> str:
            """The address of this list with changed parameters. None drops a parameter."""
            return url_for(self.endpoint, **(parameters | changes))

        return render_template(
            "admin/list.html",
            listing=self,
            page=page,
            rows=self.load(page.ids),
            parameters=parameters,
            problems=problems,
            link=link,
            periods=periods.NAMES,
            shortcuts=self.shortcuts(by),
        )

    def csv(self, by: Actor) -> ResponseReturnValue:
        """Stream everything that the parameters find, and an actor may see, as CSV."""
        endpoint, parameters = f"{self.endpoint}_csv", self._parameters()
        if not all(parameters.values()):
            return _without_empty_parameters(endpoint, parameters)
        query, problems = self._query(parameters)
        ids = () if problems else lists.find_all(self.table, query, by)

        def rows() -> Iterator[list[list[Any]]]:
            for start in range(0, len(ids), EXPORT_CHUNK):
                chunk = self.load(ids[start : start + EXPORT_CHUNK])
                yield [[column.export(row) for column in self.columns] for row in chunk]

        content = files.as_csv([column.csv_label or column.label for column in self.columns], rows())
        return files.download(f"{self.title.lower()}.csv", content)

    def _parameters(self) -> dict[str, str]:
        """The parameters that the list knows. Others, such as `_external`, would change the addresses of `url_for`."""
        known = {"search", "sort", "desc", "page", *PERIOD_NAMES, *(field.name for field in self.filters)}
        return {name: value for name, value in request.args.items() if name in known}

    def _query(self, parameters: Mapping[str, str]) -> tuple[ListQuery, list[str]]:
        """Parse the parameters. Returns the query, and a message for each filter with an impossible value."""
        values, problems = {}, []
        for field in self.filters:
            if text := parameters.get(field.name):
                try:
                    values[field.name] = field.value(text)
                except ValueError as error:
                    problems.append(f"{field.label}: {error}.")
        try:
            period = _period(parameters, datetime.now(UTC))
        except ValueError as error:
            problems.append(f"{self.dated}: {error}.")
        else:
            if period != (None, None):
                values["period"] = period
        query = ListQuery(
            words=parameters.get("search", "")[:MAX_SEARCH_LENGTH].split(),
            filters=values,
            sort=parameters.get("sort"),
            descending=parameters.get("desc") == "1",
        )
        return query, problems


def _period(parameters: Mapping[str, str], now: datetime) -> periods.Period:
    """Parse the filter by date.

    Raises:
        ValueError: it is no period.
    """
    zone = _zone(parameters.get("zone", ""))
    first, last = days(parameters)
    name = parameters.get("when", "")
    if name and name not in periods.NAMES:
        raise ValueError(f"{name!r} is not one of {', '.join(periods.NAMES)}")
    named: periods.Period = periods.named(name, now.astimezone(zone)) if name else (None, None)
    return periods.both(named, periods.days(first, last, zone))


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name) if name else UTC
    except (KeyError, OSError, ValueError):  # the last two if the name is no name, such as a folder's
        raise ValueError(f"{name[:30]!r} is not a time zone that this server knows, such as Europe/Berlin") from None


def _without_empty_parameters(endpoint: str, parameters: Mapping[str, str]) -> ResponseReturnValue:
    filled: dict[str, Any] = {name: value for name, value in parameters.items() if value}
    return redirect(url_for(endpoint, **filled))
