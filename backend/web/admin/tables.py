"""The long lists, by Flask-Admin: search, filters, order, pages and CSV, and nothing that changes a row."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from flask import abort, g, redirect, request, url_for
from flask_admin.contrib.sqla import ModelView
from flask_admin.contrib.sqla.filters import BaseSQLAFilter, BooleanEqualFilter, FilterEqual, IntEqualFilter
from markupsafe import Markup
from sqlalchemy import ColumnElement, and_, or_, select, true

from backend.core.cost import run_cost
from backend.core.state import TrialStatus
from backend.database import states
from backend.database.extensions import db
from backend.database.models import AuditEntry, Job, Trial
from backend.usecases import reading
from backend.usecases.users import Role
from backend.web.admin import login
from backend.web.admin.export import cell
from lightning_bso.wire import MAX_INT

_KNOWN = ("search", "sort", "desc", "page", "page_size")
_FILTER = "flt"
_MOST_PAGES = 1_000_000
_EXPORT_CHUNK = 1000


_STATUSES = {
    TrialStatus.DISPATCHED.value: "running",
    TrialStatus.SUCCEEDED.value: "ended with a verdict",
    TrialStatus.FAILED.value: "ended without",
}


class _WholeNumber(IntEqualFilter):
    def clean(self, value: str) -> int:
        number = int(value)
        if not 0 <= number <= MAX_INT:
            raise ValueError("out of range")
        return number


class Table(ModelView):
    """A list that is read only, for those with a role."""

    can_create = can_edit = can_delete = False
    can_view_details = column_display_actions = False
    can_export = True
    page_size = 50
    named_filter_urls = True
    action_disallowed_list = ("delete",)
    list_template = "bso/table.html"
    role = Role.VIEWER
    note = ""
    """What the list is of, above it."""

    def is_accessible(self) -> bool:
        """Whether who is asking may see it."""
        person = login.current()
        return person is not None and person.may(self.role)

    def inaccessible_callback(self, name: str, **kwargs: Any) -> Any:
        """Send them to the login, or away."""
        return login.to_login() if login.current() is None else abort(403, f"this needs the role {self.role}")

    def _handle_view(self, name: str, **kwargs: Any) -> Any:
        refused = super()._handle_view(name, **kwargs)
        if refused is not None:
            return refused
        if not 0 <= request.args.get("page", 0, type=int) <= _MOST_PAGES:
            abort(404)
        asked = self.asked()
        filled = {key: value for key, value in asked.items() if value or not key.startswith(_FILTER)}
        return redirect(url_for(f".{name}", **kwargs, **filled)) if filled != asked else None

    def asked(self) -> dict[str, Any]:
        """What the request asks of the list, to be asked again; `url_for` would take other parameters for its own."""
        return {key: value for key, value in request.args.items() if key in _KNOWN or key.startswith(_FILTER)}

    def _get_list_extra_args(self) -> Any:
        asked = super()._get_list_extra_args()
        asked.extra_args = {}  # the rest, which Flask-Admin hands to `url_for`
        return asked

    def filter_fields(self) -> list[tuple[str, str, list[tuple[str, str]] | None, str]]:
        """The fields of the form: name, label, options if there are any, and what stands in it."""
        fields = []
        for index, one in enumerate(self._filters or ()):
            name = f"{_FILTER}{index}_{self.get_filter_arg(index, one)}"
            options = [(str(key), str(label)) for key, label in one.get_options(self) or ()] or None
            fields.append((name, str(one.name), options, request.args.get(name, "")))
        return fields

    def get_export_value(self, model: Any, name: Any) -> Any:
        """A cell of the CSV; what a spreadsheet would take for a formula is text to it."""
        return cell(super().get_export_value(model, name))

    def get_list(self, *args: Any, **kwargs: Any) -> Any:
        """The rows of a page."""
        count, rows = super().get_list(*args, **kwargs)
        self.look_up(rows)
        return count, rows

    def look_up(self, rows: list[Any]) -> None:
        """Get what their columns show beside what they hold."""

    def holding(self, term: str) -> ColumnElement[bool]:
        """Which rows hold a text, in columns of their own."""
        own = (column for column, path in self._search_fields or () if not path)
        return or_(*(column.icontains(term, autoescape=True) for column in own))

    def _apply_search(self, query: Any, count_query: Any, joins: Any, count_joins: Any, search: str) -> Any:
        # As it is typed: to Flask-Admin `%`, `_`, `^` and `=` have meanings of their own.
        found = and_(true(), *map(self.holding, search.split()))
        return query.filter(found), count_query.filter(found), joins, count_joins

    def _export_data(self) -> Any:
        # All of them, a chunk at a time.
        asked = self._get_list_extra_args()
        column = self._get_column_by_idx(asked.sort)
        arguments = (0, column and column[0], asked.sort_desc, asked.search, asked.filters)
        rows: Any = super().get_list(*arguments, execute=False, page_size=0)[1]
        return None, self._in_chunks(rows.yield_per(_EXPORT_CHUNK))

    def _in_chunks(self, rows: Iterable[Any]) -> Iterator[Any]:
        rows = iter(rows)
        while chunk := list(islice(rows, _EXPORT_CHUNK)):
            self.look_up(chunk)
            yield from chunk


class Jobs(Table):
    """All jobs."""

    column_list = ("job_id", "policy", "gpu_model", "paused", "trials", "running", "best", "last_seen", "created_at")
    column_labels = {  # noqa: RUF012 - as Flask-Admin has it
        "job_id": "Job",
        "gpu_model": "GPU",
        "best": "Best batch size",
        "last_seen": "Last seen (UTC)",
        "created_at": "Created (UTC)",
    }
    column_sortable_list = ("job_id", "policy", "gpu_model", "paused", "created_at")
    column_default_sort = ("created_at", True)
    column_searchable_list = ("job_id", "gpu_model")
    column_formatters = {  # noqa: RUF012
        "job_id": lambda _view, _context, row, _name: _link("job.index", row.job_id, job=row.job_id),
        "trials": lambda _view, _context, row, _name: _told(row).trials,
        "running": lambda _view, _context, row, _name: _told(row).running,
        "best": lambda _view, _context, row, _name: _told(row).best_batch_size or "",
        "last_seen": lambda _view, _context, row, _name: _moment(_told(row).last_seen_at),
        "created_at": lambda _view, _context, row, _name: _moment(row.created_at),
        "paused": lambda _view, _context, row, _name: "paused" if row.paused else "",
    }
    column_formatters_export = column_formatters | {"job_id": lambda _view, _context, row, _name: row.job_id}

    def scaffold_filters(self, name: Any) -> Any:
        """As given below."""
        return [name] if isinstance(name, BaseSQLAFilter) else super().scaffold_filters(name)

    column_filters = (
        FilterEqual(Job.policy, "Policy", options=[("gp-ucb", "gp-ucb"), ("zeus", "zeus")]),
        FilterEqual(Job.gpu_model, "GPU"),
        BooleanEqualFilter(Job.paused, "Paused"),
    )

    def look_up(self, rows: list[Job]) -> None:
        """How these jobs stand."""
        g.listings = reading.listings([row.id for row in rows])


class Trials(Table):
    """All trials of all jobs."""

    column_list = (
        *("of.job_id", "number", "batch_size", "status", "outcome_code", "energy_j", "time_s", "cost_j", "epochs"),
        *("host", "energy_source", "started_at", "reason", "outcome"),
    )
    column_labels = {  # noqa: RUF012
        "of.job_id": "Job",
        "number": "Trial",
        "outcome_code": "Outcome",
        "energy_j": "Energy (J)",
        "time_s": "Time (s)",
        "cost_j": "Cost (J)",
        "reason": "Why this batch size",
        "outcome": "What came of it",
        "started_at": "Started (UTC)",
        "run_id": "Run",
    }
    column_select_related_list = (Trial.of,)  # type: ignore[assignment]  # its documentation allows attributes
    column_sortable_list = ("number", "batch_size", "status", "energy_j", "time_s", "epochs", "started_at")
    column_default_sort = ("id", True)
    column_searchable_list = ("of.job_id", "run_id", "host", "outcome")
    column_filters = (
        FilterEqual(Job.job_id, "Job"),
        _WholeNumber(Trial.batch_size, "Batch size"),
        FilterEqual(Trial.status, "Status", options=list(_STATUSES.items())),
        FilterEqual(Trial.outcome_code, "Outcome"),
    )
    column_formatters = {  # noqa: RUF012
        "of.job_id": lambda _view, _context, row, _name: _link("job.index", row.of.job_id, job=row.of.job_id),
        "number": lambda _view, _context, row, _name: _link(
            "trial.index", str(row.number), job=row.of.job_id, number=row.number
        ),
        "status": lambda _view, _context, row, _name: _STATUSES[row.status],
        "energy_j": lambda _view, _context, row, _name: f"{row.energy_j:.6g}",
        "cost_j": lambda _view, _context, row, _name: f"{_cost_j(row):.6g}",
        "time_s": lambda _view, _context, row, _name: f"{row.time_s:.6g}",
        "started_at": lambda _view, _context, row, _name: _moment(row.started_at),
    }
    column_formatters_export = {  # noqa: RUF012
        "status": lambda _view, _context, row, _name: _STATUSES[row.status],
        "cost_j": lambda _view, _context, row, _name: str(_cost_j(row)),
        "started_at": lambda _view, _context, row, _name: _moment(row.started_at),
    }

    def holding(self, term: str) -> ColumnElement[bool]:
        """Which trials, or their jobs, hold a text."""
        of_job = Trial.job.in_(select(Job.id).where(Job.job_id.icontains(term, autoescape=True)))
        return or_(of_job, super().holding(term))


class Audit(Table):
    """Who did what."""

    role = Role.ADMIN
    column_list = ("at", "actor", "address", "action", "job_id", "detail")
    column_labels = {"at": "When (UTC)", "actor": "Who", "address": "From", "job_id": "Job"}  # noqa: RUF012
    column_sortable_list = ("at", "actor", "action")
    column_default_sort = ("id", True)
    column_searchable_list = ("actor", "job_id", "detail", "address")
    column_filters = (FilterEqual(AuditEntry.action, "Action"), FilterEqual(AuditEntry.job_id, "Job"))
    column_formatters = {"at": lambda _view, _context, row, _name: _moment(row.at)}  # noqa: RUF012


def make() -> list[Table]:
    """The tables, in the order of the menu."""
    return [
        Jobs(Job, db, name="Jobs", endpoint="jobs", url="jobs"),
        Trials(Trial, db, name="Trials", endpoint="trials", url="trials"),
        Audit(AuditEntry, db, name="Audit", endpoint="audit", url="audit"),
    ]


def _cost_j(row: Trial) -> float:
    return run_cost(states.core_spec(row.of), row.energy_j, row.time_s)


def _told(row: Job) -> Any:
    return g.listings[row.id]


def _link(endpoint: str, text: str, **arguments: Any) -> Markup:
    return Markup('<a href="{}">{}</a>').format(url_for(endpoint, **arguments), text)


def _moment(at: Any) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else ""
