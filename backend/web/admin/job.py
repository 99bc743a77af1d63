"""A job's page: its figures, its trials as a file, and the actions on it."""

import re
from collections.abc import Iterator
from typing import Literal

from flask import current_app, flash, jsonify, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from lightning_bso.quantities import duration, joules
from lightning_bso.wire import TrialRecord, TrialRequest

from ...usecases import dashboard, jobs, notes, reading, runs
from ...usecases.users import Role
from .. import files
from . import export, login, plots
from .blueprint import blueprint
from .login import PageUser
from .parameters import job_id, trial_number, trial_numbers

LATEST_TRIALS = 25
_EXPORT_PAGE = 1000


@blueprint.get("/job/", endpoint="job")
@login.requires(Role.VIEWER)
def show_job(user: PageUser) -> ResponseReturnValue:
    """Show the page."""
    return page(user)


def page(user: PageUser, refused: Literal["note", "deletion"] | None = None, problem: str | None = None) -> str:
    """Make the page.

    Args:
        user: the user.
        refused: the form that was refused. It keeps what was typed.
        problem: why it was refused.
    """
    history = dashboard.history(job_id(), user.actor)
    first = max(0, history.trial_count - LATEST_TRIALS)
    latest = reading.list_trials(job_id(), first, LATEST_TRIALS, user.actor).trials
    trials = {trial.trial_number: trial for trial in (*history.running, *latest)}
    return render_template(
        "admin/job.html",
        job=history.job,
        history=history,
        note=notes.read(job_id(), 0, user.actor),
        trials=[trials[number] for number in sorted(trials, reverse=True)],
        pareto_front=[summary.batch_size for summary in plots.pareto(plots.converged(history.summaries))],
        refused=refused,
        problem=problem,
    )


@blueprint.get("/job/plots")
@login.requires(Role.VIEWER)
def job_plots(user: PageUser) -> ResponseReturnValue:
    """The figures and the numbers behind the slider; 204 if the page already shows the current revision."""
    if request.args.get("since") == str(dashboard.revision(job_id(), user.actor)):
        return "", 204
    history = dashboard.history(job_id(), user.actor)
    numbers = trial_numbers(request.args.get("trials", ""))[: dashboard.MAX_CURVES]
    curves = dashboard.metric_curves(job_id(), numbers, user.actor)
    target = history.job.learnt_target
    target_metric = history.spec.target_metric if target is None else target.target_metric
    return jsonify(
        figures=plots.figures(history) | {"curves": plots.curves(curves, target_metric)},
        revision=history.revision,
        eta=history.spec.eta_knob,
        max_power=history.spec.max_power,
        sizes=[
            {
                "batch_size": summary.batch_size,
                "energy": summary.mean_energy_j,
                "time": summary.mean_time_s,
                "says": f"{joules(summary.mean_energy_j)} in {duration(summary.mean_time_s)}",
            }
            for summary in plots.converged(history.summaries)
        ],
    )


@blueprint.get("/job/export")
@login.requires(Role.VIEWER)
def export_trials(user: PageUser) -> ResponseReturnValue:
    """Stream all trials of the job as CSV or JSON."""
    job, actor = job_id(), user.actor
    spec = dashboard.spec(job, actor)

    def pages() -> Iterator[list[TrialRecord]]:
        offset = 0
        while trials := reading.list_trials(job, offset, _EXPORT_PAGE, actor).trials:
            offset += len(trials)
            yield trials

    name = "trials-" + re.sub(r"[^A-Za-z0-9.-]+", "_", job)
    if request.args.get("format") == "json":
        content = export.trials_as_json(spec.model_dump_json(), pages())
        return files.download(f"{name}.json", content, "application/json")
    return files.download(f"{name}.csv", export.trials_as_csv(pages()))


@blueprint.post("/job/pause")
@login.requires(Role.OPERATOR)
def pause_job(user: PageUser) -> ResponseReturnValue:
    """Pause the job, or resume it."""
    paused = request.form.get("paused") == "1"
    jobs.pause(job_id(), paused=paused, by=user.actor)
    flash("Paused: every run gets the default batch size." if paused else "Resumed: the policy chooses again.")
    return _back_to_job()


@blueprint.post("/job/reset")
@login.requires(Role.OPERATOR)
def reset_job(user: PageUser) -> ResponseReturnValue:
    """Start a new exploration."""
    jobs.reset(job_id(), by=user.actor)
    flash("Reset: a new exploration starts. The history is kept, but no longer counts in decisions.")
    return _back_to_job()


@blueprint.post("/job/end")
@login.requires(Role.OPERATOR)
def end_trial(user: PageUser) -> ResponseReturnValue:
    """End a trial for good. A training that still runs stops at its next report."""
    number = trial_number(request.form.get("number"))
    trial = dashboard.trial(job_id(), number, user.actor)
    if not dashboard.can_be_ended(trial):
        flash(f"Trial {number} had already ended: {trial.outcome}")
        return _back_to_job()
    ended = TrialRequest(
        job_id=job_id(),
        batch_size=trial.batch_size,
        trial_number=number,
        reason=f"ended by {user.name} on the admin page"[:500],
    )
    runs.end(ended, by=user.actor, lease_s=current_app.config["LEASE_S"], by_user=True)
    flash(f"Trial {number} is ended. Its training stops at its next report and cannot resume the trial.")
    return _back_to_job()


@blueprint.route("/job/delete", methods=["GET", "POST"])
@login.requires(Role.ADMIN)
def delete_job(user: PageUser) -> ResponseReturnValue:
    """Delete the job if the user typed its id. A GET leads to the page that has the form."""
    if request.method == "GET":  # the address of a refused form, after a login or from a bookmark
        return _back_to_job()
    if request.form.get("typed") != job_id():
        return page(user, "deletion", "Nothing was deleted: the typed text is not the job's id."), 422
    jobs.delete(job_id(), by=user.actor)
    flash("Deleted.")
    return redirect(url_for("admin.jobs"))


def _back_to_job() -> ResponseReturnValue:
    return redirect(url_for("admin.job", job=job_id()))
