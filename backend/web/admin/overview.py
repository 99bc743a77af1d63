"""The overview: the state of all jobs on one page. And the revision of all jobs, by which open pages refresh."""

from flask import current_app, jsonify, render_template, request
from flask.typing import ResponseReturnValue

from ...usecases import overview
from ...usecases.users import Role
from . import login
from .blueprint import blueprint
from .login import PageUser

FIRST_TRAINING = """\
from lightning import Trainer
from lightning_bso import ZeusBSOCallback

callback = ZeusBSOCallback(
    "%s",
    {
        "job_id_prefix": "my-training",
        "batch_sizes": [32, 64, 128],
        "default_batch_size": 64,
        "target_metric": 0.9,
    },
    monitor="val_acc",
)
Trainer(callbacks=[callback]).fit(model)"""
"""What a training's code needs to bring the first job to a server, whose address comes in place of %s."""


@blueprint.get("/", endpoint="overview")
@login.requires(Role.VIEWER)
def show_overview(user: PageUser) -> ResponseReturnValue:
    """Show the overview."""
    revision = overview.revision(user.actor)  # read first, so the browser refreshes if anything changes meanwhile
    state = overview.overview(user.actor, current_app.config["LEASE_S"])
    server = request.url_root.rstrip("/")
    return render_template(
        "admin/overview.html", overview=state, server=server, snippet=FIRST_TRAINING % server, revision=revision
    )


@blueprint.get("/revision", endpoint="revision")
@login.requires(Role.VIEWER)
def tell_revision(user: PageUser) -> ResponseReturnValue:
    """The revision of all jobs; 204 if the page already shows it."""
    revision = overview.revision(user.actor)
    if request.args.get("since") == revision:
        return "", 204
    return jsonify(revision=revision)
