"""Access tokens: valid and invalid tokens, scopes and prefixes, and access to a server without tokens."""

import json
import re
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event, text

from backend.config import MAX_AUTH_CACHE_S
from backend.database.extensions import db
from backend.errors import InvalidField
from backend.usecases import tokens
from backend.usecases.tokens import Scope
from backend.web import auth
from tests import specs
from tests.calls import Calls
from tests.databases import connected
from tests.servers import Server, backend

Call = Callable[..., int]


@pytest.fixture
def make(app: Flask) -> Callable[..., str]:
    """A function that creates a token."""

    def make(scope: Scope = Scope.RUN, label: str = "test", valid_days: float | None = None) -> str:
        with app.app_context():
            return tokens.create(label, scope, valid_days=valid_days)

    return make


@pytest.fixture
def call(client: FlaskClient) -> Call:
    """A function that sends a request with an Authorization header, and returns the status."""

    def call(method: str, path: str, authorization: str | None = None, json: object = None) -> int:
        headers = {} if authorization is None else {"Authorization": authorization}
        return client.open(path, method=method, headers=headers, json=json).status_code

    return call


def bearer(token: str) -> str:
    return f"Bearer {token}"


def basic(token: str, user: str = "bso") -> str:
    return "Basic " + b64encode(f"{user}:{token}".encode()).decode()


def test_a_server_of_its_own_machine_is_open_until_there_is_a_token(call: Call, make: Callable[..., str]) -> None:
    assert call("GET", "/jobs") == 200
    make()
    assert call("GET", "/jobs") == 401


@pytest.mark.parametrize("address", ["10.1.2.3", "0.0.0.0", "[::]", "bso.example", "unix"])
def test_a_server_that_listens_beyond_its_machine_is_closed_until_there_is_a_token(
    client: FlaskClient, make: Callable[..., str], address: str
) -> None:
    answer = client.get("/jobs", base_url=f"http://{address}")
    assert answer.status_code == 401
    assert "token create" in answer.json["message"]
    headers = {"Authorization": bearer(make())}
    assert client.get("/jobs", base_url=f"http://{address}", headers=headers).status_code == 200


def test_an_operator_may_insist_on_an_open_server(app: Flask, client: FlaskClient) -> None:
    app.config["INSECURE_OPEN"] = True
    assert client.get("/jobs", base_url="http://10.1.2.3").status_code == 200


def test_the_host_that_a_caller_claims_does_not_open_a_closed_server(client: FlaskClient) -> None:
    answer = client.get("/jobs", base_url="http://10.1.2.3", headers={"Host": "localhost"})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example"},
        {"Origin": "https://page.example"},
        {"Origin": "null"},
        {"X-Forwarded-For": "10.1.2.3"},
        {"Forwarded": "for=10.1.2.3"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
    ids=str,
)
def test_an_open_server_does_not_answer_web_pages_and_proxies(client: FlaskClient, headers: dict[str, str]) -> None:
    answer = client.post("/jobs", json=specs.job(), headers=headers)
    assert answer.status_code == 401
    assert client.get("/jobs").json["total"] == 0


def test_an_image_on_a_web_page_makes_no_trial_on_an_open_server(client: FlaskClient, calls: Calls) -> None:
    calls.register()
    as_browsers_do = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Referer": "https://page.example/"}
    assert client.get("/jobs/batch_size?job_id=train", headers=as_browsers_do).status_code == 401
    assert calls.records() == []


def test_an_open_server_answers_pages_of_its_own(client: FlaskClient) -> None:
    assert client.get("/jobs", headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200
    for site in ("none", "same-origin", "same-site"):  # a typed address, a page of this server, a page of another port
        assert client.get("/admin/", headers={"Sec-Fetch-Site": site}).status_code == 200


def test_a_server_on_a_unix_socket_is_closed_whatever_host_the_caller_claims(client: FlaskClient) -> None:
    as_gunicorn_says = {"SERVER_NAME": "localhost", "REMOTE_ADDR": ""}
    assert client.get("/jobs", environ_overrides=as_gunicorn_says).status_code == 401


@pytest.mark.parametrize("header", [bearer, basic])
def test_a_token_lets_in_as_bearer_and_as_the_password_of_basic(
    call: Call, make: Callable[..., str], header: Callable[[str], str]
) -> None:
    assert call("GET", "/jobs", header(make())) == 200


WRITES = [("GET", "/jobs/batch_size?job_id=train"), ("POST", "/jobs/train/reset"), ("DELETE", "/jobs?job_id=train")]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://page.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://localhost:81"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_a_web_page_of_others_changes_nothing_with_a_token_that_the_browser_remembers(
    client: FlaskClient, make: Callable[..., str], headers: dict[str, str]
) -> None:
    token = make(Scope.ADMIN)
    assert client.post("/jobs", json=specs.job(), headers={"Authorization": bearer(token)}).status_code == 201
    for method, path in WRITES:
        answer = client.open(path, method=method, headers=headers | {"Authorization": basic(token)})
        assert answer.status_code == 403, path
        assert "web page" in answer.json["message"]
    answer = client.get("/jobs/train", headers=headers | {"Authorization": basic(token)})
    assert (answer.status_code, answer.json["trials"]) == (200, 0)
    bearer_is_never_sent_automatically = headers | {"Authorization": bearer(token)}
    assert client.get(WRITES[0][1], headers=bearer_is_never_sent_automatically).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}],
    ids=str,
)
def test_programs_and_the_servers_own_pages_may_use_basic(
    client: FlaskClient, make: Callable[..., str], headers: dict[str, str]
) -> None:
    token = make(Scope.ADMIN)
    assert client.post("/jobs", json=specs.job(), headers={"Authorization": bearer(token)}).status_code == 201
    for method, path in WRITES:
        answer = client.open(path, method=method, headers=headers | {"Authorization": basic(token)})
        assert answer.status_code == 200, path


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer bso_guess",
        "Basic",
        "Basic !!!",
        basic(""),
        basic("bso_guess"),
        "Digest x",
        "Bearer " + "x" * 10_000,
        "Bearer bso_\xff",
    ],
)
def test_no_token_or_a_wrong_one_is_401_and_says_what_to_send(
    client: FlaskClient, make: Callable[..., str], authorization: str | None
) -> None:
    make()
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = client.get("/jobs", headers=headers)
    assert answer.status_code == 401
    assert "token" in answer.json["message"]
    assert "Bearer" in answer.headers["WWW-Authenticate"]


def test_the_hash_that_is_stored_is_no_token(call: Call, make: Callable[..., str], database_url: str) -> None:
    token = make()
    with connected(database_url) as connection:
        stored = connection.execute(text("SELECT hash FROM tokens")).scalar_one()
    assert token not in stored
    assert call("GET", "/jobs", bearer(stored)) == 401


def test_a_token_is_looked_up_by_its_hash_and_never_compared(call: Call, make: Callable[..., str], app: Flask) -> None:
    token = make()
    sent: list[str] = []

    def listen(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        sent.append(f"{statement} {parameters}")

    with app.app_context():
        event.listen(db.engine, "before_cursor_execute", listen)
    assert call("GET", "/jobs", bearer(token)) == 200
    assert call("GET", "/jobs", bearer(token[:-1])) == 401
    for sent_token in (token, token[:-1]):
        assert any(sha256(sent_token.encode()).hexdigest() in statement for statement in sent)
    assert [statement for statement in sent if "bso_" in statement] == []


def test_an_expired_token_is_401(call: Call, make: Callable[..., str], app: Flask, database_url: str) -> None:
    token = make(valid_days=30)
    assert call("GET", "/jobs", bearer(token)) == 200
    with app.app_context():
        (info,) = tokens.list_all()
    assert info.expires_at is not None
    with connected(database_url) as connection:
        connection.execute(
            text("UPDATE tokens SET expires_at = :at"), {"at": str(info.expires_at - timedelta(days=30))}
        )
    app.extensions.pop(auth.__name__)  # as after ZEUS_BSO_AUTH_CACHE_S
    assert call("GET", "/jobs", bearer(token)) == 401


def test_a_revoked_token_is_401_and_others_stay(call: Call, make: Callable[..., str], app: Flask) -> None:
    revoked, other = make(label="a"), make(label="b")
    with app.app_context():
        tokens.revoke("a")
    assert call("GET", "/jobs", bearer(revoked)) == 401
    assert call("GET", "/jobs", bearer(other)) == 200


def test_revoking_the_last_token_does_not_open_the_server(call: Call, make: Callable[..., str], app: Flask) -> None:
    make(label="only")
    with app.app_context():
        tokens.revoke("only")
    assert call("GET", "/jobs") == 401


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        (Scope.READ, {"read"}),
        (Scope.RUN, {"read", "run"}),
        (Scope.ADMIN, {"read", "run", "admin"}),
    ],
)
def test_a_token_may_do_what_its_scope_says_and_no_more(
    call: Call, make: Callable[..., str], scope: Scope, allowed: set[str]
) -> None:
    authorization = bearer(make(scope))
    job = specs.job()
    named = {"job_id": "train", "batch_size": 16, "trial_number": 1}
    report = named | {"time": 1, "energy": 1, "metric": 0, "current_epoch": 1}
    calls = [
        ("run", "POST", "/jobs", job),
        ("run", "GET", "/jobs/batch_size?job_id=train", None),
        ("run", "POST", "/trials", {"job_id": "train", "run_id": "r"}),
        ("run", "POST", "/report", report),
        ("run", "POST", "/trials/after", named | {"time": 1, "energy": 1}),
        ("run", "POST", "/trials/heartbeat", named),
        ("run", "PATCH", "/trials", named),
        ("read", "GET", "/jobs", None),
        ("read", "GET", "/jobs/train", None),
        ("read", "GET", "/jobs/train/trials", None),
        ("read", "GET", "/jobs/train/belief", None),
        ("read", "GET", "/jobs/train/savings", None),
        ("read", "GET", "/export/trials", None),
        ("read", "GET", "/export/reports", None),
        ("read", "GET", "/metrics", None),
        ("admin", "GET", "/audit", None),
        ("admin", "POST", "/jobs/train/reset", None),
        ("admin", "DELETE", "/jobs?job_id=train", None),
    ]
    for needed, method, path, body in calls:
        status = call(method, path, authorization, body)
        assert (status != 403) == (needed in allowed), (method, path, status)


def test_a_token_limited_to_a_prefix_sees_no_other_job(
    client: FlaskClient, make: Callable[..., str], app: Flask, call: Call
) -> None:
    everyone = make(Scope.ADMIN)
    for name in ("vision-a", "Vision-b", "speech-a"):
        job = specs.job(job_id=name, job_id_prefix=name, policy="gp-ucb")
        assert call("POST", "/jobs", bearer(everyone), job) == 201
    with app.app_context():
        team = tokens.create("vision", Scope.ADMIN, job_id_prefix="vision-")

    def ask(method: str, path: str, body: object = None) -> tuple[int, Any]:
        answer = client.open(path, method=method, json=body, headers={"Authorization": bearer(team)})
        return answer.status_code, answer.json

    for other in ("speech-a", "Vision-b", "nobody"):  # two existing jobs and a missing one
        named = {"job_id": other, "batch_size": 16, "trial_number": 1}
        calls = [
            ("GET", f"/jobs/{other}", None),
            ("GET", f"/jobs/{other}/trials", None),
            ("GET", f"/jobs/{other}/belief", None),
            ("GET", f"/jobs/{other}/savings", None),
            ("GET", f"/export/trials?job_id={other}", None),
            ("GET", f"/export/reports?job_id={other}", None),
            ("POST", f"/jobs/{other}/reset", None),
            ("DELETE", f"/jobs?job_id={other}", None),
            ("PATCH", "/trials", named),
            ("GET", f"/jobs/batch_size?job_id={other}", None),
            ("POST", "/trials", {"job_id": other, "run_id": "r"}),
            ("POST", "/report", named | {"time": 1, "energy": 1, "metric": 0, "current_epoch": 1}),
            ("POST", "/trials/after", named | {"time": 1, "energy": 1}),
            ("POST", "/trials/heartbeat", named),
            ("POST", "/trials/probe", named | {"sizes": [{"batch_size": 8, "fits": False, "time": 1, "energy": 1}]}),
        ]
        for method, path, body in calls:
            status, answer = ask(method, path, body)
            assert status in (400, 404), (method, path)
            assert answer == {"message": f"there is no job {other!r}; register it first (POST /jobs), or check the id"}
        status, _ = ask("POST", "/jobs", specs.job(job_id=other, job_id_prefix=other))
        assert status == 403
    warm = specs.job(job_id="vision-w", job_id_prefix="vision-w", policy="gp-ucb", warm_start_from="speech-a")
    status, answer = ask("POST", "/jobs", warm)
    assert status == 422
    assert "does not exist" in str(answer)
    _, listed = ask("GET", "/jobs")
    assert [job["job_id"] for job in listed["jobs"]] == ["vision-a"]
    _, audit = ask("GET", "/audit")
    assert {entry["job_id"] for entry in audit["entries"]} == {"vision-a"}
    assert ask("GET", "/metrics")[0] == 403
    assert ask("GET", "/jobs/batch_size?job_id=vision-a")[0] == 200
    assert ask("POST", "/jobs", specs.job(job_id=None, job_id_prefix="vision-new"))[0] == 201


def test_the_token_is_checked_before_the_body(call: Call, make: Callable[..., str]) -> None:
    make()
    assert call("POST", "/jobs", None, {"not": "a job"}) == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/openapi/swagger"])
def test_health_and_documentation_need_no_token(call: Call, make: Callable[..., str], path: str) -> None:
    make()
    assert call("GET", path) == 200


@pytest.mark.parametrize("label", ["", " ", " ci", "ci\n", "c\x00i", "c\u202ei", "c" * 256], ids=ascii)
def test_a_label_that_nobody_could_read_or_type_is_refused(make: Callable[..., str], label: str) -> None:
    with pytest.raises(InvalidField, match="label: it must have 1 to 255 printable characters"):
        make(label=label)


@pytest.mark.parametrize("prefix", ["", " ", "vision\n", "v" * 256], ids=ascii)
def test_a_prefix_that_is_blank_too_long_or_cannot_be_printed_makes_no_token(app: Flask, prefix: str) -> None:
    with app.app_context():
        with pytest.raises(InvalidField, match="prefix: it"):
            tokens.create("team", Scope.RUN, job_id_prefix=prefix)
        assert tokens.list_all() == []


@pytest.mark.parametrize("valid_days", [-1.0, 0.0, 0.99, 3650.1, 3e6, 1e12, float("inf"), float("nan")])
def test_a_token_is_valid_for_1_to_3650_days_or_for_good(make: Callable[..., str], valid_days: float) -> None:
    with pytest.raises(InvalidField, match="valid days: they must be 1 to 3650"):
        make(valid_days=valid_days)
    make(label="a day", valid_days=1)
    make(label="ten years", valid_days=3650)


def test_the_longest_label_and_prefix_work(app: Flask, call: Call) -> None:
    with app.app_context():
        token = tokens.create("艾" * 255, Scope.READ, job_id_prefix="é" * 255)
    assert call("GET", "/jobs", bearer(token)) == 200


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--prefix=", "prefix: it is empty or blank; for access to all jobs leave it out"),
        ("--label=", "label: it must have 1 to 255 printable characters"),
        ("--valid-days=1e12", "valid days: they must be 1 to 3650"),
    ],
)
def test_the_command_line_says_what_is_wrong_with_a_token_and_makes_none(
    option: str, message: str, tmp_path: Path
) -> None:
    done = backend("token", "create", "--label=ci", option, folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {message}")
    assert backend("token", "list", folder=tmp_path).stdout == "LABEL  SCOPE  JOBS  CREATED (UTC)  STATE\n"


def test_tokens_are_made_listed_and_revoked_on_the_command_line(tmp_path: Path) -> None:
    def command(*arguments: str) -> str:
        done = backend("token", *arguments, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    token = command("create", "--label", "trainers", "--scope", "read", "--valid-days", "1")
    listed = command("list")
    assert token.startswith("bso_")
    head, line = listed.splitlines()
    assert re.split("  +", head) == ["LABEL", "SCOPE", "JOBS", "CREATED (UTC)", "STATE"]
    assert line.startswith("trainers  read   all ")
    assert token not in listed
    with Server(f"sqlite:///{tmp_path}/zeus_bso.db", tmp_path) as server:
        assert server.calls("GET", "/jobs").status == 401
        assert token not in server.read_log()
    command("revoke", "--label", "trainers")
    assert "revoked" in command("list")
    (info,) = json.loads(command("list", "--json"))
    assert (info["label"], info["scope"], info["job_id_prefix"]) == ("trainers", "read", None)
    assert datetime.fromisoformat(info["expires_at"]) - datetime.fromisoformat(info["created_at"]) == timedelta(days=1)
    assert datetime.fromisoformat(info["revoked_at"]).utcoffset() == timedelta(0)
    again = backend("token", "revoke", "--label", "trainers", folder=tmp_path)
    assert again.returncode == 1
    assert "trainers" in again.stderr


def test_a_call_that_is_refused_begins_no_transaction(make_app: Callable[..., Flask]) -> None:
    app = make_app(auth_cache_s=MAX_AUTH_CACHE_S)
    with app.app_context():
        token = tokens.create("team", Scope.RUN, job_id_prefix="team-")
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    calls = Calls.through_test_client(client)
    assert calls.ask("other").status == 400  # the server now remembers the token
    with app.app_context():
        engine = db.engine
    begun: list[Any] = []
    event.listen(engine, "begin", begun.append)
    assert calls.ask("other").status == 400
    assert calls.register(job_id="other", job_id_prefix="other").status == 403
    assert begun == []
