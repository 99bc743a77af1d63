"""Files of one job's trials, as CSV and as JSON, and the page's links to the files of all jobs.

`backend.web.files` writes the files.
"""

from collections.abc import Iterator

from flask import abort, request
from flask.typing import ResponseReturnValue

from lightning_bso.wire import TrialRecord

from ...usecases import exports
from ...usecases.users import Role
from .. import files
from . import login
from .blueprint import blueprint
from .login import PageUser

_FILES: dict[str, tuple[str, files.Format]] = {
    "trials.csv": ("trials", "csv"),
    "reports.csv": ("reports", "csv"),
    "trials.parquet": ("trials", "parquet"),
    "reports.parquet": ("reports", "parquet"),
}


@blueprint.get("/export/", endpoint="export")
@login.requires(Role.VIEWER)
def export_jobs(user: PageUser) -> ResponseReturnValue:
    """Stream a file of the trials or reports of the jobs in the parameters `job`, or of all jobs."""
    if request.args.get("file") not in _FILES:
        abort(404, f"there is no such file; the files are {', '.join(_FILES)}")
    table, kind = _FILES[request.args["file"]]
    return files.exported(table, kind, exports.jobs_named(request.args.getlist("job"), user.actor), user.actor)


def trials_as_csv(pages: Iterator[list[TrialRecord]]) -> Iterator[str]:
    """All trials of a job as CSV."""
    names = list(TrialRecord.model_fields)
    records = ([trial.model_dump(mode="json") for trial in trials] for trials in pages)
    return files.as_csv(names, ([[record[name] for name in names] for record in part] for part in records))


def trials_as_json(spec: str, pages: Iterator[list[TrialRecord]]) -> Iterator[str]:
    """A job's spec and all of its trials as JSON.

    Args:
        spec: the spec, as JSON.
        pages: the trials.
    """
    yield f'{{"job": {spec}, "trials": ['
    comma = ""
    for trials in pages:
        yield comma + ", ".join(trial.model_dump_json() for trial in trials)
        comma = ", "
    yield "]}\n"
