"""The pages that are no plain list: overview, job, trial, comparison, tokens, login.

Every change goes through the use cases.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plotly
from flask import Blueprint, Response, abort, current_app, flash, jsonify, redirect, request, send_file, url_for
from flask_admin import AdminIndexView, BaseView, expose

from backend.errors import ServiceError
from backend.usecases import dashboard, reading, runs, tokens, users
from backend.usecases.tokens import Scope
from backend.usecases.users import Role
from backend.web import auth
from backend.web.admin import export, login, plots, words
from lightning_bso.wire import MAX_ID_LENGTH, TrialRecord, TrialRequest

SHOWN_TRIALS = 25
SHOWN_REPORTS = 200
_EXPORT_PAGE = 1000
_YEAR_S = 365 * 24 * 3600

assets = Blueprint(
    "assets", __name__, static_folder="static", static_url_path="/admin/assets", template_folder="templates"
)


@assets.get("/admin/assets/plotly.js")
def plotly_script() -> Response:
    """Plotly's script, out of its Python package."""
    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    return send_file(script, "text/javascript", max_age=_YEAR_S)


class _Page:
    """What all pages share: who may see them."""

    role = Role.VIEWER

    def is_accessible(self) -> bool:
        """Whether who is asking may see it."""
        person = login.current()
        return person is not None and person.may(self.role)

    def inaccessible_callback(self, name: str, **kwargs: Any) -> Any:
        """Send them to the login, or away."""
        return login.to_login() if login.current() is None else abort(403, f"this needs the role {self.role}")


class OverviewPage(_Page, AdminIndexView):
    """How all jobs stand together."""

    @expose("/")
    def index(self) -> Any:
        """The page."""
        found = dashboard.overview(login.need(Role.VIEWER).actor, current_app.config["LEASE_S"])
        return self.render("bso/overview.html", found=found, bill=words.bill, server=request.url_root.rstrip("/"))


class JobPage(_Page, BaseView):
    """One job, and what can be done about it."""

    def is_visible(self) -> bool:
        """Not in the menu."""
        return False

    @expose("/")
    def index(self) -> Any:
        """The page."""
        job_id, actor = _job_id(), login.need(Role.VIEWER).actor
        history = dashboard.history(job_id, actor)
        first = max(0, history.total - SHOWN_TRIALS)
        latest = reading.list_trials(job_id, first, SHOWN_TRIALS, actor).trials
        shown = {trial.trial_number: trial for trial in (*history.running, *latest)}
        return self.render(
            "bso/job.html",
            job=history.job,
            history=history,
            trials=[shown[number] for number in sorted(shown, reverse=True)],
            front=_front(history),
            bill=words.bill,
        )

    @expose("/plots")
    def plots(self) -> Any:
        """The figures and what the slider needs; nothing where the revision that is shown is still the last."""
        job_id, actor = _job_id(), login.need(Role.VIEWER).actor
        if request.args.get("since") == str(dashboard.revision(job_id, actor)):
            return "", 204
        history = dashboard.history(job_id, actor)
        sizes = [one for one in history.summaries if one.mean_cost_j is not None]
        return jsonify(
            figures=plots.figures(history),
            revision=history.revision,
            eta=history.spec.eta_knob,
            max_power=history.spec.max_power,
            sizes=[
                {"batch_size": one.batch_size, "energy": one.mean_energy_j, "time": one.mean_time_s} for one in sizes
            ],
        )

    @expose("/export")
    def export(self) -> Any:
        """All trials, as CSV or JSON, a page of them at a time."""
        job_id, actor = _job_id(), login.need(Role.VIEWER).actor
        as_json = request.args.get("format") == "json"
        spec = dashboard.spec(job_id, actor)
        app = current_app._get_current_object()  # type: ignore[attr-defined]  # the answer outlives the request

        def pages() -> Iterator[list[TrialRecord]]:
            offset = 0
            with app.app_context():
                while trials := reading.list_trials(job_id, offset, _EXPORT_PAGE, actor).trials:
                    offset += len(trials)
                    yield trials

        made = export.as_json(spec.model_dump_json(), pages()) if as_json else export.as_csv(pages())
        kind = "json" if as_json else "csv"
        name = re.sub(r"[^A-Za-z0-9.-]+", "_", job_id)
        headers = {"Content-Disposition": f'attachment; filename="trials-{name}.{kind}"'}
        return Response(made, mimetype="application/json" if as_json else "text/csv", headers=headers)

    @expose("/pause", methods=("POST",))
    def pause(self) -> Any:
        """Have asks get the default batch size, or be decided again."""
        paused = request.form.get("paused") == "1"
        runs.pause(_job_id(), paused=paused, by=login.need(Role.OPERATOR).actor)
        flash("Paused: every run gets the default batch size." if paused else "The policy decides again.")
        return _to_job()

    @expose("/reset", methods=("POST",))
    def reset(self) -> Any:
        """Explore anew."""
        runs.reset(_job_id(), by=login.need(Role.OPERATOR).actor)
        flash("Reset: the exploration begins anew; the history is kept, and no longer counts.")
        return _to_job()

    @expose("/end", methods=("POST",))
    def end(self) -> Any:
        """End a trial for good; its training, if it runs, stops at its next report."""
        person, number = login.need(Role.OPERATOR), _number(request.form.get("number"))
        trial = dashboard.trial(_job_id(), number, person.actor)
        if not dashboard.can_be_ended(trial):
            flash(f"Trial {number} had ended before: {trial.outcome}")
            return _to_job()
        ended = TrialRequest(
            job_id=_job_id(),
            batch_size=trial.batch_size,
            trial_number=number,
            reason=f"ended by {person.name} on the admin page"[:500],
        )
        runs.end(ended, by=person.actor, lease_s=current_app.config["LEASE_S"], by_a_person=True)
        flash(f"Trial {number} is ended; its training stops at its next report, and does not get it back.")
        return _to_job()

    @expose("/delete", methods=("POST",))
    def delete(self) -> Any:
        """Delete the job, if its id is typed."""
        person = login.need(Role.ADMIN)
        if request.form.get("typed") != _job_id():
            flash("Nothing is deleted: what was typed is not the job's id.", "error")
            return _to_job()
        runs.delete(_job_id(), by=person.actor)
        flash("Deleted.")
        return redirect(url_for("jobs.index_view"))


class TrialPage(_Page, BaseView):
    """One trial, report by report."""

    def is_visible(self) -> bool:
        """Not in the menu."""
        return False

    @expose("/")
    def index(self) -> Any:
        """The page."""
        actor, number = login.need(Role.VIEWER).actor, _number(request.args.get("number"))
        offset = min(request.args.get("offset", 0, type=int) % (1 << 31), 1 << 30)
        revision = dashboard.revision(_job_id(), actor)  # before the rest: what is newer is fetched once more
        trial = dashboard.trial(_job_id(), number, actor)
        total, reports = dashboard.list_reports(_job_id(), number, offset, SHOWN_REPORTS, actor)
        return self.render(
            "bso/trial.html",
            job_id=_job_id(),
            spec=dashboard.spec(_job_id(), actor),
            trial=trial,
            reports=reports,
            total=total,
            offset=offset,
            revision=revision,
            step=SHOWN_REPORTS,
        )

    @expose("/plots")
    def plots(self) -> Any:
        """The figures; nothing where the revision that is shown is still the last."""
        job_id, actor, number = _job_id(), login.need(Role.VIEWER).actor, _number(request.args.get("number"))
        revision = dashboard.revision(job_id, actor)
        if request.args.get("since") == str(revision):
            return "", 204
        total, _ = dashboard.list_reports(job_id, number, 0, 0, actor)
        first = max(0, total - SHOWN_REPORTS)
        _, reports = dashboard.list_reports(job_id, number, first, SHOWN_REPORTS, actor)
        return jsonify(figures=plots.progress(dashboard.spec(job_id, actor).target_metric, reports), revision=revision)


class ComparePage(_Page, BaseView):
    """Two jobs side by side."""

    @expose("/")
    def index(self) -> Any:
        """The page."""
        actor, names, sides = login.need(Role.VIEWER).actor, _compared(), []
        for name in filter(None, names):
            try:
                sides.append((reading.describe(name, actor), reading.saved(name, actor)))
            except ServiceError as error:
                flash(str(error), "error")
        return self.render("bso/compare.html", names=names, sides=sides if len(sides) == 2 else [])

    @expose("/plots")
    def plots(self) -> Any:
        """The figure."""
        actor = login.need(Role.VIEWER).actor
        return jsonify(figures=plots.comparison([reading.describe(name, actor) for name in _compared()]))


class TokensPage(_Page, BaseView):
    """Tokens: made, shown once, revoked."""

    role = Role.ADMIN

    @expose("/", methods=("GET", "POST"))
    def index(self) -> Any:
        """The page; a POST makes a token."""
        person, made, problem = login.need(Role.ADMIN), None, None
        if request.method == "POST":
            made, problem = _make_token(person)
        shown = self.render(
            "bso/tokens.html", tokens=tokens.list_all()[::-1], scopes=list(Scope), made=made, problem=problem
        )
        return (shown, 422) if problem else shown

    @expose("/revoke", methods=("POST",))
    def revoke(self) -> Any:
        """Revoke all tokens of a label."""
        label = request.form.get("label", "")
        tokens.revoke(label, login.need(Role.ADMIN).actor)
        flash(f"Revoked: {label}")
        return redirect(url_for("tokens.index"))


class LoginPage(BaseView):
    """The one page that anyone may see."""

    def is_visible(self) -> bool:
        """Not in the menu."""
        return False

    @expose("/", methods=("GET", "POST"))
    def index(self) -> Any:
        """The page; a POST logs in."""
        asked, problem, status = request.args.get("next"), None, 200
        if request.method == "POST":
            name, password = (
                request.form.get("name", "")[:MAX_ID_LENGTH],
                request.form.get("password", "")[: users.LONGEST_PASSWORD],
            )
            try:
                account = users.log_in(name, password, auth.address())
            except ServiceError as error:
                problem, status = str(error), error.status
            else:
                if account is not None:
                    login.enter(account)
                    return redirect(login.back(asked))
                problem, status = "No user has this name and this password.", 401
        elif login.current() is not None:
            return redirect(login.back(asked))
        page = self.render(
            "bso/login.html",
            problem=problem,
            nobody=not users.any_exist(),
            unsafe=not (request.is_secure or auth.is_loopback(request.host.rsplit(":", 1)[0])),
        )
        return page, status

    @expose("/out", methods=("POST",))
    def out(self) -> Any:
        """Log out everywhere."""
        login.leave()
        return redirect(url_for("login.index"))


def make() -> list[BaseView]:
    """The pages, in the order of the menu."""
    return [
        ComparePage(name="Compare", endpoint="compare", url="compare"),
        TokensPage(name="Tokens", endpoint="tokens", url="tokens"),
        JobPage(name="Job", endpoint="job", url="job"),
        TrialPage(name="Trial", endpoint="trial", url="trial"),
        LoginPage(name="Log in", endpoint="login", url="login"),
    ]


def _front(history: dashboard.History) -> list[int]:
    known = [one for one in history.summaries if one.mean_cost_j is not None]
    return [one.batch_size for one in plots.pareto(known)]


def _job_id() -> str:
    return request.args.get("job", "")[: MAX_ID_LENGTH + 1]


def _compared() -> list[str]:
    return [request.args.get(name, "")[: MAX_ID_LENGTH + 1] for name in ("a", "b")]


def _number(text: str | None) -> int:
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 9:
        abort(404, "there is no such trial")
    return int(text)


def _to_job() -> Any:
    return redirect(url_for("job.index", job=_job_id()))


def _make_token(person: login.Person) -> tuple[str | None, str | None]:
    form = request.form
    label, prefix, days = form.get("label", "").strip(), form.get("prefix", ""), form.get("days", "").strip()
    prefix = prefix.strip() or prefix  # blanks alone stay, to be refused: they are not the empty field of all jobs
    if form.get("scope") not in list(Scope):
        return None, "Choose a scope."
    scope = Scope(form["scope"])
    try:
        valid_days = float(days) if days else None
    except ValueError:
        return None, "The days after which it expires are a number; leave them empty for never."
    try:
        return tokens.create(label, scope, valid_days=valid_days, job_id_prefix=prefix or None, by=person.actor), None
    except ServiceError as error:
        return None, str(error)
