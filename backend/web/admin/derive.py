"""A new job with the spec of another one, at another eta: a form, prefilled, that registers it."""

from collections.abc import Mapping

from flask import flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from pydantic import ValidationError

from lightning_bso.wire import MAX_ID_LENGTH, JobSummary, RegisteredJobSpec

from ...errors import ServiceError
from ...usecases import jobs, reading
from ...usecases.users import Role
from . import login
from .blueprint import blueprint
from .login import PageUser
from .parameters import job_id

FIELDS = {
    "job_id": "Job id",
    "eta_knob": "eta, the weight of energy against time",
    "batch_sizes": "Batch sizes",
    "default_batch_size": "Default batch size",
    "target_metric": "Target of the metric",
    "beta_knob": "Early-stop factor (beta); empty: never stop early",
    "max_epochs": "Most epochs",
}
"""The fields of the form. The rest of the spec is that of the other job."""


@blueprint.route("/job/derive", methods=["GET", "POST"], endpoint="derive_job")
@login.requires(Role.OPERATOR)
def derive_job(user: PageUser) -> ResponseReturnValue:
    """Show the form; a POST registers the job."""
    job = reading.describe(job_id(), user.actor)
    if request.method == "GET":
        return _page(job, _prefilled(job, request.args.get("eta", "")), warm=_can_start_warm(job))
    form = request.form
    try:
        spec, is_new = jobs.register(_spec(job, form), by=user.actor)
    except ValidationError as error:
        return _page(job, form, warm="warm" in form, problems=_problems(error), status=422)
    except ServiceError as error:
        return _page(job, form, warm="warm" in form, problems=[str(error)], status=error.status)
    done = "Registered." if is_new else "This job was registered before, with the same spec."
    flash(f"{done} Give the training job_id {spec.job_id!r} and eta_knob {spec.eta_knob:g}, and it uses this job.")
    return redirect(url_for("admin.job", job=spec.job_id))


def _prefilled(job: JobSummary, eta: str) -> dict[str, str]:
    """The fields' texts for a job like another one, at another eta if the text is one."""
    spec = job.spec
    try:
        weight = float(eta) if 0 <= float(eta) <= 1 else spec.eta_knob
    except ValueError:
        weight = spec.eta_knob
    end = f"-eta-{weight:g}"
    target = spec.target_metric if job.learnt_target is None else job.learnt_target.target_metric
    values = {
        **{name: getattr(spec, name) for name in FIELDS},
        "job_id": (spec.job_id or "")[: MAX_ID_LENGTH - len(end)] + end,
        "eta_knob": weight,
        "batch_sizes": ", ".join(map(str, spec.batch_sizes)),
        "target_metric": target,
    }
    return {name: "" if value is None else f"{value}" for name, value in values.items()}


def _can_start_warm(job: JobSummary) -> bool:
    """Whether another job can take over what this job knows of the epochs to the target."""
    return job.spec.policy == "gp-ucb" and any(size.converged for size in job.batch_sizes)


def _spec(job: JobSummary, form: Mapping[str, str]) -> RegisteredJobSpec:
    """The spec that the form describes.

    Raises:
        ValidationError: a field is not valid.
    """
    typed: dict[str, object] = {name: form.get(name, "").strip() or None for name in FIELDS}
    sizes = form.get("batch_sizes", "").replace(",", " ").split()
    warm_start_from = job.spec.job_id if "warm" in form else None
    changes = typed | {
        "job_id": form.get("job_id", "").strip(),
        "batch_sizes": [_number(size) for size in sizes],
        "warm_start_from": warm_start_from,
    }
    changes |= {name: _number(str(changes[name] or "")) for name in FIELDS if name not in ("job_id", "batch_sizes")}
    return RegisteredJobSpec.model_validate(job.spec.model_dump() | changes)


def _problems(error: ValidationError) -> list[str]:
    """What is wrong with the fields, under the names that the form gives them."""
    problems = []
    for fault in error.errors():
        field, *place = fault["loc"] or ("",)
        name = FIELDS.get(str(field), str(field)) + (f", {fault['input']!r}" if place else "")
        said = fault["msg"].removeprefix("Value error, ")
        problems.append(f"{name}: {said}." if name else f"{said}.")
    return list(dict.fromkeys(problems))


def _number(text: str) -> int | float | str | None:
    """The number in a text; None for an empty text. Another text stays, and is refused with its field's name."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text or None


def _page(
    job: JobSummary, typed: Mapping[str, str], *, warm: bool, problems: list[str] | None = None, status: int = 200
) -> ResponseReturnValue:
    page = render_template(
        "admin/derive.html",
        job=job,
        fields=FIELDS,
        typed=typed,
        warm=warm,
        can_start_warm=_can_start_warm(job),
        problems=problems or [],
        kept={name: value for name, value in job.spec if name not in FIELDS and name != "warm_start_from"},
    )
    return page, status
