"""The admin page without a browser: what it shows, who may do what, and what attackers get."""

import csv
import html
import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.core import policies
from backend.core.cost import trial_cost
from backend.core.state import JobState
from backend.usecases import dashboard, tokens, users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.tokens import Scope
from backend.usecases.users import Role
from backend.web.admin import plots, tables
from tests import specs
from tests.calls import Calls
from tests.databases import let_time_pass
from tests.logins import PASSWORD, csrf, log_in

PAGES = [
    "/admin/",
    "/admin/jobs/",
    "/admin/trials/",
    "/admin/compare/",
    "/admin/job/?job=train",
    "/admin/trial/?job=train&number=1",
]
PAGES_OF_ADMINS = ["/admin/tokens/", "/admin/audit/"]


@pytest.fixture
def people(app: Flask) -> None:
    """One user of each role, called as it."""
    with app.app_context():
        for role in Role:
            users.create(role, PASSWORD, role, COMMAND_LINE)


def post(client: FlaskClient, path: str, **form: str) -> Any:
    """Send a form of the job's page."""
    return client.post(path, data=form | {"csrf_token": csrf(client.get("/admin/job/?job=train").text)})


def with_trials(calls: Calls, **changes: Any) -> None:
    """A job with some history, of which one trial runs."""
    calls.register(**changes)
    for number in range(9):
        trial = calls.trial()
        (calls.diverge if number == 4 else calls.converge)(trial, energy=10.0 + trial["batch_size"] / 4)
    calls.trial()


def test_an_empty_server_says_how_to_begin(client: FlaskClient) -> None:
    page = client.get("/admin/", base_url="http://127.0.0.1:8123").text
    assert "There is no job yet" in page
    assert "http://127.0.0.1:8123" in page


@pytest.mark.parametrize("policy", ["zeus", "gp-ucb"])
def test_every_page_shows_what_is_there(client: FlaskClient, calls: Calls, policy: str) -> None:
    with_trials(calls, policy=policy)
    for path in [*PAGES, *PAGES_OF_ADMINS, "/admin/compare/?a=train&b=train"]:
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert "train" in answer.text or path in ("/admin/tokens/", "/admin/compare/")
    job = client.get("/admin/job/?job=train").text
    assert calls.must(calls("GET", "/jobs/train/belief"))["next_reason"] in job.replace("&#39;", "'")
    assert client.get("/admin/job/?job=nobody").status_code == 404
    assert client.get("/admin/trial/?job=train&number=99").status_code == 404
    assert "nobody" in client.get("/admin/compare/?a=nobody&b=train").text


@pytest.mark.parametrize(
    ("search", "found"),
    [("RAIN-b", 1), ("train b", 1), ("%", 0), ("_", 0), ("train_b", 0), ("^train", 0), ("=train", 0)],
)
def test_what_is_searched_for_is_text_and_no_pattern(
    client: FlaskClient, calls: Calls, search: str, found: int
) -> None:
    calls.register(job_id="train-b")
    calls.trial("train-b")
    for table, rows in (("jobs", 1), ("trials", 1), ("audit", 2)):
        page = client.get(f"/admin/{table}/", query_string={"search": search}).text
        assert f'<span class="small">({found * rows})' in page, table


def test_lists_of_any_length_are_exported_whole(
    client: FlaskClient, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_EXPORT_CHUNK", 3)
    with_trials(calls)
    for number in range(7):
        calls.register(job_id=f"train-{number}")
    for table, column, expected in (
        ("jobs", "Job", {"train", *(f"train-{number}" for number in range(7))}),
        ("trials", "Trial", {str(number) for number in range(1, 11)}),
    ):
        rows = list(csv.DictReader(io.StringIO(client.get(f"/admin/{table}/export/csv/").text)))
        assert len(rows) == len(expected)
        assert {row[column] for row in rows} == expected


def test_the_list_of_trials_tells_what_each_cost_why_it_was_given_and_what_came_of_it(
    client: FlaskClient, calls: Calls
) -> None:
    calls.register(eta_knob=0.5, max_power=300)
    trial = calls.trial()
    calls.diverge(trial, energy=101.0)
    page, exported = client.get("/admin/trials/").text, client.get("/admin/trials/export/csv/").text
    for told in (page, exported):
        assert "200.5" in told  # 0.5 · 101 J + 0.5 · 300 W · 1 s
        assert trial["reason"] in html.unescape(told)
        assert "the run has diverged" in told
        assert "ended with a verdict" in told
    assert "(1)" in client.get("/admin/trials/?flt2_status_equals=Succeeded").text


def test_lists_are_searched_filtered_sorted_and_exported(client: FlaskClient, calls: Calls) -> None:
    with_trials(calls)
    calls.register(job_id="train-b", gpu_model="=H100")
    jobs = client.get("/admin/jobs/?search=train-b").text
    assert "=H100" in jobs
    assert "job=train&" not in jobs
    assert 'href="/admin/job/?job=train"' not in jobs
    assert "(1)" in client.get("/admin/jobs/?flt1_gpu_equals=%3DH100").text
    assert client.get("/admin/jobs/?flt1_gpu_equals=").status_code == 302
    assert "(1)" in client.get("/admin/trials/?flt2_status_equals=Dispatched").text
    assert client.get("/admin/trials/?sort=1&desc=1&page=0").status_code == 200
    rows = list(csv.reader(io.StringIO(client.get("/admin/jobs/export/csv/").text)))
    assert sorted(row[0] for row in rows[1:]) == ["train", "train-b"]
    assert "'=H100" in {row[2] for row in rows}
    assert len(list(csv.reader(io.StringIO(client.get("/admin/trials/export/csv/").text)))) == 11
    exported = client.get("/admin/job/export?job=train&format=json").json
    assert len(exported["trials"]) == 10
    assert exported["job"]["job_id"] == "train"
    assert len(list(csv.reader(io.StringIO(client.get("/admin/job/export?job=train&format=csv").text)))) == 11


@pytest.mark.parametrize(
    ("policy", "trials"), [("zeus", 3), ("zeus", 12), ("gp-ucb", 9)], ids=["pruning", "bandit", "gp-ucb"]
)
def test_every_figure_holds_the_cores_own_numbers(
    app: Flask, calls: Calls, client: FlaskClient, policy: str, trials: int
) -> None:
    calls.register(policy=policy)
    for number in range(trials):
        trial = calls.trial()
        (calls.diverge if number == 5 else calls.converge)(trial, energy=10.0 + trial["batch_size"] / 4 + number)
    with app.app_context():
        history = dashboard.history("train", COMMAND_LINE)
    figures = client.get("/admin/job/plots?job=train").json["figures"]
    assert figures == plots.figures(history)
    points = {
        x: y
        for trace in figures["costs"]["data"]
        if trace["mode"] == "markers"
        for x, y in zip(trace["x"], trace["y"], strict=True)
    }
    ended = [one.trial for one in history.ended]
    assert points == {trial.number: trial_cost(history.spec, trial) for trial in ended}
    assert len(points) == trials
    state = JobState(history.spec, tuple(ended))
    expected = {
        str(one.batch_size): (one.expected_j, one.sd_j)
        for one in policies.expectations(state)
        if one.expected_j is not None
    }
    shown = {
        x: (y, sd)
        for trace in figures["beliefs"]["data"]
        if trace["name"] != "next"
        for x, y, sd in zip(trace["x"], trace["y"], trace["error_y"]["array"], strict=True)
    }
    assert shown == {size: (pytest.approx(cost), pytest.approx(sd)) for size, (cost, sd) in expected.items()}
    told = calls.must(calls("GET", "/jobs/train/savings"))
    last = {trace["name"]: trace["y"][-1] for trace in figures["savings"]["data"]}
    assert last["against the default"] == pytest.approx(told["against_default"]["cost"])
    assert last["against always the best"] == pytest.approx(told["against_best"]["cost"])
    known = {size["batch_size"]: size for size in calls.describe()["batch_sizes"] if size["mean_cost"] is not None}
    (dots,) = (trace for trace in figures["energy"]["data"] if trace["name"] == "batch sizes")
    assert dict(zip(map(int, dots["text"]), dots["y"], strict=True)) == {
        size: one["mean_energy"] for size, one in known.items()
    }
    best = plots.winner(history.spec, history.summaries, history.spec.eta_knob)
    assert best is not None
    assert best.batch_size == calls.describe()["best_batch_size"]
    (bound,) = (trace["y"][0] for trace in figures["costs"]["data"] if trace["name"] == "bound")
    assert bound == calls.must(calls("GET", "/jobs/train/belief"))["cost_bound"]


def test_a_long_history_is_plotted_from_its_last_trials_and_adds_up(
    app: Flask, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_trials(calls, policy="gp-ucb")
    with app.app_context():
        whole = plots.cumulative_savings(dashboard.history("train", COMMAND_LINE))["data"]
        monkeypatch.setattr(dashboard, "MOST_PLOTTED", 4)
        last = plots.cumulative_savings(dashboard.history("train", COMMAND_LINE))["data"]
    assert [trace["y"] for trace in last] == [pytest.approx(trace["y"][-4:]) for trace in whole]


def test_a_run_that_a_person_has_ended_does_not_get_its_trial_back(client: FlaskClient, calls: Calls) -> None:
    calls.register()
    calls.trial(run_id="requeued")
    post(client, "/admin/job/end?job=train", number="1")
    assert calls.records()[-1]["outcome_code"] == "stopped"
    assert calls.trial(run_id="requeued")["outcome"] == "ended by own machine on the admin page"


END_BUTTON = "End trial 1<"


@pytest.mark.parametrize("before", ["ended", "left", "lost", "back"])
def test_a_person_can_keep_a_run_from_coming_back(
    before: str, client: FlaskClient, calls: Calls, database_url: str
) -> None:
    calls.register()
    trial = calls.trial(run_id="requeued")
    if before == "lost":
        let_time_pass(database_url, "train", 1, 3601)
        calls.trial()
    else:
        calls.must(calls.end(trial, over=before == "left"))
    if before == "back":  # and has not reported yet
        assert calls.trial(run_id="requeued")["outcome"] is None
    pages = ("/admin/job/?job=train", "/admin/trial/?job=train&number=1")
    assert all(END_BUTTON in client.get(page).text for page in pages)
    post(client, "/admin/job/end?job=train", number="1")
    assert calls.record(trial)["outcome_code"] == "stopped"
    assert calls.trial(run_id="requeued")["outcome"] == "ended by own machine on the admin page"
    assert calls.must(calls.report(trial))["reason"] == "stopped"
    assert not any(END_BUTTON in client.get(page).text for page in pages)


def test_a_run_with_a_verdict_cannot_be_ended(client: FlaskClient, calls: Calls) -> None:
    calls.register()
    trial = calls.trial()
    calls.converge(trial)
    assert END_BUTTON not in client.get("/admin/job/?job=train").text
    post(client, "/admin/job/end?job=train", number="1")
    assert calls.record(trial)["outcome_code"] == "converged"


def test_actions_go_through_the_use_cases(client: FlaskClient, calls: Calls) -> None:
    with_trials(calls)
    assert post(client, "/admin/job/end?job=train", number="10").status_code == 302
    assert calls.records()[-1]["outcome"] == "ended by own machine on the admin page"
    post(client, "/admin/job/pause?job=train", paused="1")
    assert calls.trial()["type"] == "Paused"
    post(client, "/admin/job/pause?job=train", paused="0")
    post(client, "/admin/job/reset?job=train")
    assert calls.trial()["reason"].startswith("pruning round 1")
    post(client, "/admin/job/delete?job=train", typed="trian")
    assert calls.describe()["trials"] == 1
    post(client, "/admin/job/delete?job=train", typed="train")
    assert calls("GET", "/jobs/train").status == 404


@pytest.mark.usefixtures("people")
def test_one_must_log_in_as_soon_as_there_is_a_user(client: FlaskClient, calls: Calls) -> None:
    assert calls.register().status == 401
    for path in (*PAGES, *PAGES_OF_ADMINS, "/admin/job/plots?job=train", "/admin/trials/export/csv/"):
        answer = client.get(path)
        assert answer.status_code == 302, path
        assert answer.location.startswith("/admin/login/?next=/admin/"), path
    assert log_in(client, "viewer", "wrong password").status_code == 401
    assert log_in(client, "nobody").status_code == 401
    assert client.get("/admin/").status_code == 302
    answer = log_in(client, "viewer", after="?next=/admin/jobs/?search=x")
    assert (answer.status_code, answer.location) == (302, "/admin/jobs/?search=x")
    assert client.get("/admin/").status_code == 200


def test_a_token_without_any_user_closes_the_page_and_says_how_to_open_it(client: FlaskClient, app: Flask) -> None:
    with app.app_context():
        tokens.create("only", Scope.RUN)
    assert client.get("/admin/").status_code == 302
    assert "python -m backend user create" in client.get("/admin/login/").text


@pytest.mark.parametrize("role", list(Role))
def test_each_role_may_do_what_it_says_and_no_more(client: FlaskClient, calls: Calls, app: Flask, role: Role) -> None:
    with_trials(calls)
    with app.app_context():
        users.create(role, PASSWORD, role, COMMAND_LINE)
    log_in(client, role)
    for path in PAGES:
        assert client.get(path).status_code == 200, path
    for path in PAGES_OF_ADMINS:
        assert client.get(path).status_code == (200 if role is Role.ADMIN else 403), path
    token = csrf(client.get("/admin/job/?job=train").text)
    wanted = {
        "/admin/job/end?job=train": ({"number": "10"}, Role.OPERATOR, 302),
        "/admin/job/pause?job=train": ({"paused": "1"}, Role.OPERATOR, 302),
        "/admin/job/reset?job=train": ({}, Role.OPERATOR, 302),
        "/admin/tokens/": ({"label": "x", "scope": "read"}, Role.ADMIN, 200),
        "/admin/tokens/revoke": ({"label": "x"}, Role.ADMIN, 302),
        "/admin/job/delete?job=train": ({"typed": "train"}, Role.ADMIN, 302),
    }
    for path, (form, needed, status) in wanted.items():
        answer = client.post(path, data=form | {"csrf_token": token})
        assert answer.status_code == (status if role.covers(needed) else 403), path


@pytest.mark.usefixtures("people")
def test_a_form_without_its_csrf_token_does_nothing(client: FlaskClient) -> None:
    log_in(client, "admin")
    for path in ("/admin/tokens/", "/admin/job/reset?job=train", "/admin/login/out", "/admin/login/"):
        for token in (None, "", "forged"):
            answer = client.post(
                path, data={"label": "x", "scope": "run"} | ({} if token is None else {"csrf_token": token})
            )
            assert answer.status_code == 400, path
    assert "Tokens" in client.get("/admin/tokens/").text


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    "elsewhere",
    [
        "//evil.example",
        "https://evil.example/admin/",
        "/\\evil.example",
        "/admin\\..//evil",
        "javascript:alert(1)",
        "/admin/%0d%0aX: y",
        "/admin/\r\nX: y",
        "/jobs",
    ],
)
def test_a_login_leads_to_no_other_place(client: FlaskClient, elsewhere: str) -> None:
    answer = client.get("/admin/login/", query_string={"next": elsewhere})
    form = {"name": "viewer", "password": PASSWORD, "csrf_token": csrf(answer.text)}
    answer = client.post("/admin/login/", data=form, query_string={"next": elsewhere})
    assert answer.location.startswith("/admin/")
    assert "evil" not in answer.location
    assert "X" not in answer.headers


@pytest.mark.usefixtures("people")
def test_a_session_ends_with_logging_out_a_changed_user_or_a_forged_cookie(client: FlaskClient, app: Flask) -> None:
    log_in(client, "operator")
    stolen = client.get_cookie("bso_session")
    assert stolen is not None
    assert client.get("/admin/").status_code == 200
    client.post("/admin/login/out", data={"csrf_token": csrf(client.get("/admin/").text)})
    client.set_cookie("bso_session", stolen.value)
    assert client.get("/admin/").status_code == 302
    log_in(client, "operator")
    with app.app_context():
        users.change("operator", COMMAND_LINE, disabled=True)
    assert client.get("/admin/").status_code == 302
    assert log_in(client, "operator").status_code == 401
    client.set_cookie("bso_session", stolen.value[:-4] + "AAAA")
    assert client.get("/admin/").status_code == 302


@pytest.mark.usefixtures("people")
def test_a_session_that_an_attacker_began_is_not_the_users_after_the_login(client: FlaskClient, app: Flask) -> None:
    attacker = app.test_client()
    attacker.get("/admin/login/")
    planted = attacker.get_cookie("bso_session")
    assert planted is not None
    client.set_cookie("bso_session", planted.value)
    log_in(client, "admin")
    after = client.get_cookie("bso_session")
    assert after is not None
    assert after.value != planted.value
    assert attacker.get("/admin/").status_code == 302


@pytest.mark.usefixtures("people")
def test_the_cookie_is_for_this_server_alone_and_not_for_scripts(client: FlaskClient) -> None:
    answer = log_in(client, "viewer")
    cookie = answer.headers["Set-Cookie"]
    assert all(word in cookie for word in ("Secure", "HttpOnly", "SameSite=Lax"))


EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}"


def test_what_people_name_things_is_never_markup(client: FlaskClient, calls: Calls) -> None:
    calls.register(job_id=EVIL, job_id_prefix="<", gpu_model=EVIL)
    trial = calls.must(calls("POST", "/trials", {"job_id": EVIL, "run_id": "<b>r</b>", "host": EVIL}))
    calls.end(trial, reason=EVIL)
    post_label = client.post(
        "/admin/tokens/", data={"label": EVIL, "scope": "read", "csrf_token": csrf(client.get("/admin/tokens/").text)}
    )
    assert post_label.status_code == 200
    for path in ("/admin/", "/admin/jobs/", "/admin/trials/", "/admin/job/", "/admin/trial/", "/admin/compare/"):
        page = client.get(path, query_string={"job": EVIL, "number": 1, "a": EVIL, "b": EVIL, "search": EVIL}).text
        assert "<script>alert" not in page, path
        assert "<img src=x" not in page, path
        assert "<b>r" not in page, path
        assert "49" not in page or "{{7*7}}" in page


METACHARACTERS = [
    "'",
    '"',
    "%",
    "_",
    "\\",
    "' OR 1=1 --",
    "../../etc/passwd",
    "%2e%2e%2f",
    "\x00",
    "é😀",
    "a" * 300,
    "-1",
    "1e9",
    "99999999999999999999",
]


@pytest.mark.parametrize("what", METACHARACTERS, ids=lambda what: ascii(what)[:20])
def test_metacharacters_anywhere_are_text_and_nothing_else(client: FlaskClient, calls: Calls, what: str) -> None:
    with_trials(calls)
    names = [
        "job",
        "number",
        "offset",
        "search",
        "page",
        "sort",
        "desc",
        "page_size",
        "a",
        "b",
        "format",
        "flt0_job_equals",
        "flt1_batch_size_equals",
        "flt3_outcome_equals",
    ]
    paths = [
        "/admin/jobs/",
        "/admin/trials/",
        "/admin/audit/",
        "/admin/job/",
        "/admin/trial/",
        "/admin/compare/",
        "/admin/job/export",
        "/admin/job/plots",
    ]
    for path in paths:
        for name in names:
            given = {"job": "train", "number": "1"} | {name: what}
            assert client.get(path, query_string=given).status_code < 500, (path, name)
    for name in ("contains", "gpu_model", "offset", "limit", "policy", "paused"):
        assert client.get("/jobs", query_string={name: what}).status_code < 500
    assert client.get(f"/admin/assets/{what}").status_code in (301, 302, 308, 404)
    assert calls.describe()["trials"] == 10


def test_no_page_lets_scripts_of_others_or_inline_ones_run(client: FlaskClient, calls: Calls) -> None:
    with_trials(calls)
    for path in (*PAGES, *PAGES_OF_ADMINS, "/admin/login/", "/jobs", "/admin/nowhere"):
        answer = client.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        for script in re.findall(r"<script([^>]*)>", answer.text):
            assert 'src="/admin/assets/' in script, path
        assert not re.search(r"\son\w+=|javascript:|https?://(?!localhost|127\.0\.0\.1)", answer.text), path


def test_oversized_bodies_are_refused(client: FlaskClient) -> None:
    assert client.post("/admin/login/", data={"name": "x" * 100_000}).status_code == 413


def test_a_token_made_on_the_page_is_shown_once_and_works(client: FlaskClient, app: Flask) -> None:
    form = {
        "label": "team",
        "scope": "run",
        "prefix": "train",
        "days": "30",
        "csrf_token": csrf(client.get("/admin/tokens/").text),
    }
    made = client.post("/admin/tokens/", data=form).text
    found = re.search(r'id="made">(bso_[^<]+)<', made)
    assert found is not None
    assert client.post("/jobs", json=specs.job(), headers={"Authorization": f"Bearer {found[1]}"}).status_code == 201
    with app.app_context():
        users.create("boss", PASSWORD, Role.ADMIN, COMMAND_LINE)
    log_in(client, "boss")
    page = client.get("/admin/tokens/").text
    assert found[1] not in page
    client.post("/admin/tokens/revoke", data={"label": "team", "csrf_token": csrf(page)})
    assert client.get("/jobs/train", headers={"Authorization": f"Bearer {found[1]}"}).status_code == 401


@pytest.mark.parametrize(
    "wrong",
    [
        {"label": ""},
        {"label": "a\x00b"},
        {"scope": "root"},
        {"days": "-1"},
        {"days": "nan"},
        {"days": "soon"},
        {"prefix": " "},
    ],
    ids=str,
)
def test_the_page_says_what_is_wrong_with_a_token_and_makes_none(
    client: FlaskClient, app: Flask, wrong: dict[str, str]
) -> None:
    form = {"label": "team", "scope": "run", "csrf_token": csrf(client.get("/admin/tokens/").text)}
    answer = client.post("/admin/tokens/", data=form | wrong)
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    with app.app_context():
        assert tokens.list_all() == []


def test_fields_left_empty_on_the_page_make_a_token_of_all_jobs_for_good(client: FlaskClient, app: Flask) -> None:
    token = csrf(client.get("/admin/tokens/").text)
    form = {"label": " team ", "scope": "run", "prefix": "", "days": "", "csrf_token": token}
    assert client.post("/admin/tokens/", data=form).status_code == 200
    with app.app_context():
        (made,) = tokens.list_all()
    assert (made.label, made.job_id_prefix, made.expires_at) == ("team", None, None)


@pytest.mark.parametrize(
    ("proxies", "shown"), [("", "127.0.0.1"), ("10.0.0.0/8", "127.0.0.1"), ("127.0.0.1", "203.0.113.9")]
)
def test_only_a_configured_proxy_is_believed_where_a_call_comes_from(
    database_url: str, proxies: str, shown: str, make_app: Callable[..., Flask]
) -> None:
    app = make_app(trusted_proxies=proxies)
    with app.app_context():
        users.create("boss", PASSWORD, Role.ADMIN, COMMAND_LINE)
        token = tokens.create("t", Scope.ADMIN)
    headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": "198.51.100.1, 203.0.113.9"}
    client = app.test_client()
    assert client.post("/jobs", json=specs.job(), headers=headers).status_code == 201
    entries = client.get("/audit", headers=headers).json["entries"]
    assert entries[0]["address"] == shown
