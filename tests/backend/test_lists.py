"""The lists of the admin page: what their parameters are called is as little to be trusted as what they hold."""

import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.calls import Calls

LISTS = ["/admin/jobs/", "/admin/trials/", "/admin/audit/", "/admin/jobs/export/csv/", "/admin/trials/export/csv/"]
NAMES = [
    *("endpoint", "export_type", "name", "self", "values", "filename", "_anchor", "_external", "_method", "_scheme"),
    *("flt", "flt_", "flt0", "flt0_", "flt99_policy_equals", "flt0_policy_equals", "fltx_policy_equals", "fltendpoint"),
    *("", " ", "'", "%", "\x00", "é😀", "a" * 300, "search[]", "page.x", "{{7*7}}", "__class__"),
]
VALUES = ["", "csv", "POST", "https://evil.example/#"]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:30])
def test_a_list_knows_no_parameters_but_its_own(client: FlaskClient, calls: Calls, name: str) -> None:
    calls.register()
    for path in LISTS:
        for value in VALUES:
            query: list[dict[str, Any]] = [
                {name: value},
                {name: value, "_external": "1"},
                {name: value, "_external": "1", "flt0_policy_equals": "", "search": "train"},
            ]
            for parameters in query:
                answer = client.get(path, query_string=parameters)
                assert answer.status_code in (200, 302), (path, parameters)
                assert re.match(rf"{path}(\?|$)", answer.headers.get("Location", path)), (path, parameters)
                links = re.findall(r'href="([^"]*)"', answer.text)
                assert [link for link in links if not link.startswith(("/", "#"))] == [], (path, parameters)


def test_what_is_looked_for_stays_in_the_links_of_a_list(client: FlaskClient) -> None:
    asked = {"search": "train", "sort": "0", "desc": "1", "flt1_gpu_equals": "A40", "endpoint": "x"}
    page = client.get("/admin/jobs/", query_string=asked).text.replace("&amp;", "&")
    (export,) = re.findall(r'href="(/admin/jobs/export/csv/[^"]*)"', page)
    assert "search=train" in export
    assert "flt1_gpu_equals=A40" in export
    assert "endpoint" not in page


def test_fields_of_the_form_left_empty_are_dropped_and_the_rest_stays(client: FlaskClient) -> None:
    answer = client.get("/admin/jobs/?flt0_policy_equals=&flt1_gpu_equals=A40&search=x&endpoint=y")
    assert answer.status_code == 302
    assert answer.location == "/admin/jobs/?flt1_gpu_equals=A40&search=x"
