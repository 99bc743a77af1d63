"""The blueprint of the admin page, and the files that its pages load."""

from pathlib import Path

import plotly
from flask import Blueprint, Response, send_file

PATH = "/admin"
_YEAR_S = 365 * 24 * 3600

blueprint = Blueprint(
    "admin",
    __name__,
    url_prefix=PATH,
    template_folder="templates",
    static_folder="static",
    static_url_path="/assets",
)


@blueprint.get("/assets/plotly.js")
def plotly_script() -> Response:
    """Plotly's script from its Python package."""
    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    return send_file(script, "text/javascript", max_age=_YEAR_S)
