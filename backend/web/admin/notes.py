"""The notes and tags on jobs and trials: the form's address. The form itself is in `macros.html`.

A refused form is shown again on its page, with what was typed and the reason.
"""

from flask import flash, redirect, request, url_for
from flask.typing import ResponseReturnValue

from ...errors import InvalidField
from ...usecases import notes
from ...usecases.users import Role
from . import job, login, trial
from .blueprint import blueprint
from .login import PageUser
from .parameters import job_id, trial_number


@blueprint.route("/job/note", methods=["GET", "POST"])
@login.requires(Role.OPERATOR)
def write_note(user: PageUser) -> ResponseReturnValue:
    """Write the note on the job, for the number 0, or on a trial of it. A GET leads to the page that has the form."""
    number = trial_number(request.args.get("number"))
    own_page = url_for("admin.trial", job=job_id(), number=number) if number else url_for("admin.job", job=job_id())
    if request.method == "GET":  # the address of a refused form, after a login or from a bookmark
        return redirect(own_page)
    text = request.form.get("text", "").replace("\r\n", "\n")  # a browser counts a line's end as one character
    try:
        notes.write(job_id(), number, text, request.form.get("tags", ""), user.actor)
    except InvalidField as error:
        problem = f"Nothing was saved: {error}."
        return (trial.page(user, number, problem) if number else job.page(user, "note", problem)), error.status
    flash("Saved.")
    return redirect(own_page)
