"""Log in to the admin page through the test client, as a browser does."""

import re
from collections.abc import Mapping
from typing import Any

from flask.testing import FlaskClient

PASSWORD = "correct horse battery"


def csrf(page: str) -> str:
    """Return the CSRF token in a page's forms."""
    match = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert match is not None, page
    return match[1]


def log_in(
    client: FlaskClient, name: str, password: str = PASSWORD, after: str = "", headers: Mapping[str, str] | None = None
) -> Any:
    """Try to log in, and return the response."""
    path = f"/admin/login/{after}"
    form = {"name": name, "password": password, "csrf_token": csrf(client.get(path, headers=headers).text)}
    return client.post(path, data=form, headers=headers)
