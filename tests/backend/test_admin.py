"""The admin page without a browser: its content, its permissions, and attacks on it."""

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
from backend.web.admin import listing, plots
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
PAGES_OF_ADMINS = ["/admin/tokens/", "/admin/users/", "/admin/audit/"]


@pytest.fixture
def users_of_each_role(app: Flask) -> None:
    """One user of each role. The user's name is the role."""
    with app.app_context():
        for role in Role:
            users.create(role, PASSWORD, role, COMMAND_LINE)


def post(client: FlaskClient, path: str, **form: str) -> Any:
    """Send a form with the CSRF token of the job's page."""
    return client.post(path, data=form | {"csrf_token": csrf(client.get("/admin/job/?job=train").text)})


def with_trials(calls: Calls, **changes: Any) -> None:
    """Register a job with ended trials and one running trial."""
    calls.register(**changes)
    for number in range(9):
        trial = calls.trial()
        (calls.diverge if number == 4 else calls.converge)(trial, energy=10.0 + trial["batch_size"] / 4)
    calls.trial()


def test_the_servers_bare_address_leads_to_the_page(client: FlaskClient) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.location) == (302, "/admin/")


def test_an_empty_server_shows_how_to_start(client: FlaskClient) -> None:
    page = client.get("/admin/", base_url="http://127.0.0.1:8123").text
    assert "There is no job yet" in page
    assert "http://127.0.0.1:8123" in page


@pytest.mark.parametrize("policy", ["zeus", "gp-ucb"])
def test_every_page_shows_the_data_of_its_jobs(client: FlaskClient, calls: Calls, policy: str) -> None:
    with_trials(calls, policy=policy)
    for path in [*PAGES, *PAGES_OF_ADMINS, "/admin/compare/?job=train"]:
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert "train" in answer.text or path in ("/admin/tokens/", "/admin/users/")
    job = client.get("/admin/job/?job=train").text
    assert calls.must(calls("GET", "/jobs/train/belief"))["next_reason"] in job.replace("&#39;", "'")
    assert client.get("/admin/job/?job=nobody").status_code == 404
    assert client.get("/admin/trial/?job=train&number=99").status_code == 404
    assert "nobody" in client.get("/admin/compare/?job=nobody&job=train").text


@pytest.mark.parametrize(
    ("search", "matches"),
    [("RAIN-b", 1), ("train b", 1), ("%", 0), ("_", 0), ("train_b", 0), ("^train", 0), ("=train", 0)],
)
def test_a_search_is_plain_text_and_no_pattern(client: FlaskClient, calls: Calls, search: str, matches: int) -> None:
    calls.register(job_id="train-b")
    calls.trial("train-b")
    for name, rows in (("jobs", 1), ("trials", 1), ("audit", 2)):
        page = client.get(f"/admin/{name}/", query_string={"search": search}).text
        assert f"data-live>({matches * rows})<" in page, name


def test_lists_of_any_length_are_exported_completely(
    client: FlaskClient, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "EXPORT_CHUNK", 3)
    with_trials(calls)
    for number in range(7):
        calls.register(job_id=f"train-{number}")
    for name, column, expected in (
        ("jobs", "Job", {"train", *(f"train-{number}" for number in range(7))}),
        ("trials", "Trial", {str(number) for number in range(1, 11)}),
    ):
        rows = list(csv.DictReader(io.StringIO(client.get(f"/admin/{name}/export/csv/").text)))
        assert len(rows) == len(expected)
        assert {row[column] for row in rows} == expected


def test_the_list_of_trials_shows_costs_reasons_and_outcomes(client: FlaskClient, calls: Calls) -> None:
    calls.register(eta_knob=0.5, max_power=300)
    trial = calls.trial()
    calls.diverge(trial, energy=101.0)
    page, exported = client.get("/admin/trials/").text, client.get("/admin/trials/export/csv/").text
    for text, cost in ((page, "200 J"), (exported, "200.5")):  # 0.5 · 101 J + 0.5 · 300 W · 1 s
        assert cost in text
        assert trial["reason"] in html.unescape(text)
        assert "the run has diverged" in text
        assert "failed: diverged" in text
    assert "(1)" in client.get("/admin/trials/?status=diverged").text


def test_lists_are_searched_filtered_sorted_and_exported(client: FlaskClient, calls: Calls) -> None:
    with_trials(calls)
    calls.register(job_id="train-b", gpu_model="=H100")
    jobs = client.get("/admin/jobs/?search=train-b").text
    assert "=H100" in jobs
    assert "job=train&" not in jobs
    assert 'href="/admin/job/?job=train"' not in jobs
    assert "(1)" in client.get("/admin/jobs/?gpu=%3DH100").text
    assert client.get("/admin/jobs/?gpu=").status_code == 302
    assert "(1)" in client.get("/admin/trials/?status=running").text
    assert client.get("/admin/trials/?sort=trial&desc=1&page=0").status_code == 200
    rows = list(csv.reader(io.StringIO(client.get("/admin/jobs/export/csv/").text)))
    assert sorted(row[0] for row in rows[1:]) == ["train", "train-b"]
    assert "'=H100" in {row[rows[0].index("GPU")] for row in rows}
    assert len(list(csv.reader(io.StringIO(client.get("/admin/trials/export/csv/").text)))) == 11
    exported = client.get("/admin/job/export?job=train&format=json").json
    assert len(exported["trials"]) == 10
    assert exported["job"]["job_id"] == "train"
    assert len(list(csv.reader(io.StringIO(client.get("/admin/job/export?job=train&format=csv").text)))) == 11


@pytest.mark.parametrize(
    ("policy", "trials"), [("zeus", 3), ("zeus", 12), ("gp-ucb", 9)], ids=["pruning", "bandit", "gp-ucb"]
)
def test_every_figure_shows_the_numbers_of_the_core(
    app: Flask, calls: Calls, client: FlaskClient, policy: str, trials: int
) -> None:
    calls.register(policy=policy)
    for number in range(trials):
        trial = calls.trial()
        (calls.diverge if number == 5 else calls.converge)(trial, energy=10.0 + trial["batch_size"] / 4 + number)
    with app.app_context():
        history = dashboard.history("train", COMMAND_LINE)
    figures = client.get("/admin/job/plots?job=train").json["figures"]
    assert figures.pop("curves")["data"][0]["name"] == f"trial {max(1, trials - 4)}"
    assert figures == plots.figures(history)
    points = {
        x: y
        for trace in figures["costs"]["data"]
        if trace["mode"] == "markers"
        for x, y in zip(trace["x"], trace["y"], strict=True)
    }
    ended = [entry.trial for entry in history.ended]
    assert points == {trial.number: trial_cost(history.spec, trial) for trial in ended}
    assert len(points) == trials
    state = JobState(history.spec, tuple(ended))
    expected = {
        str(expectation.batch_size): (expectation.expected_j, expectation.sd_j)
        for expectation in policies.expectations(state)
        if expectation.expected_j is not None
    }
    plotted = {
        x: (y, sd)
        for trace in figures["beliefs"]["data"]
        if trace["name"] != "next"
        for x, y, sd in zip(trace["x"], trace["y"], trace["error_y"]["array"], strict=True)
    }
    assert plotted == {size: (pytest.approx(cost), pytest.approx(sd)) for size, (cost, sd) in expected.items()}
    savings = calls.must(calls("GET", "/jobs/train/savings"))
    last = {trace["name"]: trace["y"][-1] for trace in figures["savings"]["data"]}
    assert last["against the default"] == pytest.approx(savings["against_default"]["cost"])
    assert last["against the lowest mean"] == pytest.approx(savings["against_best"]["cost"])
    converged = {size["batch_size"]: size for size in calls.describe()["batch_sizes"] if size["mean_cost"] is not None}
    (dots,) = (trace for trace in figures["energy"]["data"] if trace["name"] == "batch sizes")
    assert dict(zip(map(int, dots["ids"]), dots["y"], strict=True)) == {
        size: summary["mean_energy"] for size, summary in converged.items()
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
        monkeypatch.setattr(dashboard, "MAX_PLOTTED_TRIALS", 4)
        last = plots.cumulative_savings(dashboard.history("train", COMMAND_LINE))["data"]
    assert [trace["y"] for trace in last] == [pytest.approx(trace["y"][-4:]) for trace in whole]


def test_a_run_whose_trial_a_user_ended_cannot_resume(client: FlaskClient, calls: Calls) -> None:
    calls.register()
    calls.trial(run_id="requeued")
    post(client, "/admin/job/end?job=train", number="1")
    assert calls.records()[-1]["outcome_code"] == "stopped"
    assert calls.trial(run_id="requeued")["outcome"] == "ended by own machine on the admin page"


END_BUTTON = "End trial 1<"


@pytest.mark.parametrize("before", ["ended", "left", "lost", "back"])
def test_a_user_can_keep_a_run_from_resuming(before: str, client: FlaskClient, calls: Calls, database_url: str) -> None:
    calls.register()
    trial = calls.trial(run_id="requeued")
    if before == "lost":
        let_time_pass(database_url, "train", 1, 3601)
        calls.trial()
    else:
        calls.must(calls.end(trial, over=before == "left"))
    if before == "back":  # resumed, without a report yet
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


@pytest.mark.usefixtures("users_of_each_role")
def test_pages_need_a_login_once_a_user_exists(client: FlaskClient, calls: Calls) -> None:
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


@pytest.mark.usefixtures("users_of_each_role")
def test_only_the_login_and_the_assets_open_without_a_login(client: FlaskClient, app: Flask) -> None:
    form = {"csrf_token": csrf(client.get("/admin/login/").text)}
    guarded = [
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in ("GET", "POST")
        if rule.rule.startswith("/admin/")
        and not rule.rule.startswith(("/admin/login/", "/admin/assets/"))
        and method in (rule.methods or ())
    ]
    assert {("GET", "/admin/"), ("POST", "/admin/tokens/"), ("POST", "/admin/job/delete")} <= set(guarded)
    for method, path in guarded:
        answer = client.open(path, method=method, data=form if method == "POST" else None)
        assert answer.status_code == 302, path
        assert answer.location.startswith("/admin/login/"), path


def test_a_token_without_any_user_closes_the_page_and_the_login_says_how_to_create_one(
    client: FlaskClient, app: Flask
) -> None:
    with app.app_context():
        tokens.create("only", Scope.RUN)
    assert client.get("/admin/").status_code == 302
    assert "python -m backend user create" in client.get("/admin/login/").text


@pytest.mark.parametrize("role", list(Role))
def test_each_role_allows_its_actions_and_no_others(client: FlaskClient, calls: Calls, app: Flask, role: Role) -> None:
    with_trials(calls)
    with app.app_context():
        users.create(role, PASSWORD, role, COMMAND_LINE)
    log_in(client, role)
    for path in PAGES:
        assert client.get(path).status_code == 200, path
    for path in PAGES_OF_ADMINS:
        assert client.get(path).status_code == (200 if role is Role.ADMIN else 403), path
    token = csrf(client.get("/admin/job/?job=train").text)
    actions = {
        "/admin/job/end?job=train": ({"number": "10"}, Role.OPERATOR, 302),
        "/admin/job/pause?job=train": ({"paused": "1"}, Role.OPERATOR, 302),
        "/admin/job/reset?job=train": ({}, Role.OPERATOR, 302),
        "/admin/tokens/": ({"label": "x", "scope": "read"}, Role.ADMIN, 200),
        "/admin/tokens/revoke": ({"label": "x"}, Role.ADMIN, 302),
        "/admin/job/delete?job=train": ({"typed": "train"}, Role.ADMIN, 302),
    }
    for path, (form, required, status) in actions.items():
        answer = client.post(path, data=form | {"csrf_token": token})
        assert answer.status_code == (status if role.covers(required) else 403), path


@pytest.mark.usefixtures("users_of_each_role")
def test_a_form_without_its_csrf_token_does_nothing(client: FlaskClient) -> None:
    log_in(client, "admin")
    for path in ("/admin/tokens/", "/admin/job/reset?job=train", "/admin/login/out", "/admin/login/"):
        for token in (None, "", "forged"):
            answer = client.post(
                path, data={"label": "x", "scope": "run"} | ({} if token is None else {"csrf_token": token})
            )
            assert answer.status_code == 400, path
    assert "Tokens" in client.get("/admin/tokens/").text


@pytest.mark.usefixtures("users_of_each_role")
@pytest.mark.parametrize(
    "elsewhere",
    [
        "//evil.example",
        "https://evil.example/admin/",
        "/\\evil.example",
        "//[",
        "/admin\\..//evil",
        "javascript:alert(1)",
        "/admin/%0d%0aX: y",
        "/admin/\r\nX: y",
        "/jobs",
    ],
)
def test_a_login_redirects_to_this_server_only(client: FlaskClient, elsewhere: str) -> None:
    answer = client.get("/admin/login/", query_string={"next": elsewhere})
    form = {"name": "viewer", "password": PASSWORD, "csrf_token": csrf(answer.text)}
    answer = client.post("/admin/login/", data=form, query_string={"next": elsewhere})
    assert answer.location.startswith("/admin/")
    assert "evil" not in answer.location
    assert "X" not in answer.headers


@pytest.mark.usefixtures("users_of_each_role")
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


@pytest.mark.usefixtures("users_of_each_role")
def test_a_planted_session_is_not_the_users_after_the_login(client: FlaskClient, app: Flask) -> None:
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


@pytest.mark.usefixtures("users_of_each_role")
def test_the_cookie_is_hidden_from_scripts_and_other_sites(client: FlaskClient) -> None:
    answer = log_in(client, "viewer")
    cookie = answer.headers["Set-Cookie"]
    assert all(word in cookie for word in ("Secure", "HttpOnly", "SameSite=Lax"))


EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}"


def test_names_are_never_markup(client: FlaskClient, calls: Calls) -> None:
    calls.register(job_id=EVIL, job_id_prefix="<", gpu_model=EVIL)
    trial = calls.must(calls("POST", "/trials", {"job_id": EVIL, "run_id": "<b>r</b>", "host": EVIL}))
    calls.end(trial, reason=EVIL)
    form = {"label": EVIL, "scope": "read", "no_user": "1", "csrf_token": csrf(client.get("/admin/tokens/").text)}
    post_label = client.post("/admin/tokens/", data=form)
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


_LIST = ("search", "page", "sort", "desc")
PARAMETERS = {
    "/admin/jobs/": (*_LIST, "policy", "gpu", "paused"),
    "/admin/trials/": (*_LIST, "job", "batch_size", "status", "outcome"),
    "/admin/audit/": (*_LIST, "action", "job"),
    "/admin/trials/export/csv/": ("search", "sort", "desc", "job", "batch_size", "status", "outcome"),
    "/admin/job/": ("job",),
    "/admin/job/export": ("job", "format"),
    "/admin/job/plots": ("job", "since", "trials"),
    "/admin/trial/": ("job", "number", "offset"),
    "/admin/trial/plots": ("job", "number", "since"),
    "/admin/compare/": ("job", "like", "search"),
    "/admin/compare/plots": ("job", "like"),
}
"""The parameters that each page reads. tests/backend/test_lists.py sends others to the lists."""


@pytest.mark.parametrize("text", METACHARACTERS, ids=lambda text: ascii(text)[:20])
def test_metacharacters_in_any_parameter_are_plain_text(client: FlaskClient, calls: Calls, text: str) -> None:
    with_trials(calls)
    for path, names in PARAMETERS.items():
        for name in names:
            parameters = {"job": "train", "number": "1"} | {name: text}
            assert client.get(path, query_string=parameters).status_code < 500, (path, name)
    for name in ("contains", "gpu_model", "offset", "limit", "policy", "paused"):
        assert client.get("/jobs", query_string={name: text}).status_code < 500
    assert client.get(f"/admin/assets/{text}").status_code in (301, 302, 308, 404)
    assert calls.describe()["trials"] == 10


def test_no_page_allows_foreign_or_inline_scripts(client: FlaskClient, calls: Calls) -> None:
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


def test_a_token_created_on_the_page_is_shown_once_and_works(client: FlaskClient, app: Flask) -> None:
    form = {
        "label": "team",
        "scope": "run",
        "prefix": "train",
        "days": "30",
        "no_user": "1",
        "csrf_token": csrf(client.get("/admin/tokens/").text),
    }
    page = client.post("/admin/tokens/", data=form).text
    match = re.search(r'id="new-token">(bso_[^<]+)<', page)
    assert match is not None
    assert client.post("/jobs", json=specs.job(), headers={"Authorization": f"Bearer {match[1]}"}).status_code == 201
    with app.app_context():
        users.create("boss", PASSWORD, Role.ADMIN, COMMAND_LINE)
    log_in(client, "boss")
    page = client.get("/admin/tokens/").text
    assert match[1] not in page
    client.post("/admin/tokens/revoke", data={"label": "team", "csrf_token": csrf(page)})
    assert client.get("/jobs/train", headers={"Authorization": f"Bearer {match[1]}"}).status_code == 401


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
def test_the_page_names_the_problem_with_a_token_and_creates_none(
    client: FlaskClient, app: Flask, wrong: dict[str, str]
) -> None:
    token = csrf(client.get("/admin/tokens/").text)
    form = {"label": "team", "scope": "run", "no_user": "1", "csrf_token": token}
    answer = client.post("/admin/tokens/", data=form | wrong)
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    with app.app_context():
        assert tokens.list_all() == []


def test_empty_fields_create_a_token_for_all_jobs_that_never_expires(client: FlaskClient, app: Flask) -> None:
    token = csrf(client.get("/admin/tokens/").text)
    form = {"label": " team ", "scope": "run", "prefix": "", "days": "", "no_user": "1", "csrf_token": token}
    assert client.post("/admin/tokens/", data=form).status_code == 200
    with app.app_context():
        (created,) = tokens.list_all()
    assert (created.label, created.job_id_prefix, created.expires_at) == ("team", None, None)


@pytest.mark.parametrize(
    ("proxies", "address"), [("", "127.0.0.1"), ("10.0.0.0/8", "127.0.0.1"), ("127.0.0.1", "203.0.113.9")]
)
def test_only_a_configured_proxy_sets_the_address_of_a_call(
    database_url: str, proxies: str, address: str, make_app: Callable[..., Flask]
) -> None:
    app = make_app(trusted_proxies=proxies)
    with app.app_context():
        users.create("boss", PASSWORD, Role.ADMIN, COMMAND_LINE)
        token = tokens.create("t", Scope.ADMIN)
    headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": "198.51.100.1, 203.0.113.9"}
    client = app.test_client()
    assert client.post("/jobs", json=specs.job(), headers=headers).status_code == 201
    entries = client.get("/audit", headers=headers).json["entries"]
    assert entries[0]["address"] == address
