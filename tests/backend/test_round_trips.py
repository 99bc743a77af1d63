"""How many round trips to the database a call takes. Each costs time, most of it while the job is locked."""

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.database.extensions import db
from backend.usecases import tokens
from tests.calls import Calls
from tests.databases import connected, round_trips

GOES_ON = {"sqlite": 5, "mysql": 3, "postgresql": 3}
ENDS = {"sqlite": 9, "mysql": 5, "postgresql": 5}
"""Most round trips of a report after which the run goes on, and of an ask or a final report.

SQLite, in the process itself, takes each statement alone: two of a final report are for the sums of its job."""
AUTH_CACHE_S = 300.0

policies = pytest.mark.parametrize("policy", ["zeus", "gp-ucb"])


@pytest.fixture
def remembering(make_app: Callable[..., Flask]) -> tuple[Flask, Calls]:
    """An application that remembers tokens, and calls with a token that it knows already."""
    app = make_app(auth_cache_s=AUTH_CACHE_S)
    with app.app_context():
        token = tokens.create("test", tokens.Scope.RUN)
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return app, Calls.through_test_client(client)


def dialect(app: Flask) -> str:
    with app.app_context():
        return db.engine.dialect.name


@policies
def test_a_call_of_a_run_takes_few_round_trips(remembering: tuple[Flask, Calls], policy: str) -> None:
    app, calls = remembering
    goes_on, ends = GOES_ON[dialect(app)], ENDS[dialect(app)]
    calls.register(policy=policy, num_pruning_rounds=1, mab_seed=1)
    for run in range(25):
        with round_trips(app) as of_ask:
            trial = calls.trial(run_id=f"run-{run}")
        assert len(of_ask) <= ends, (run, of_ask)
        for epoch in (1, 2):
            with round_trips(app) as of_report:
                report = {"report_number": epoch, "energy": epoch, "current_epoch": epoch, "energy_source": "nvml"}
                calls.must(calls.report(trial, **report))
            assert len(of_report) <= goes_on, (run, of_report)
        with round_trips(app) as of_last:
            calls.must(calls.report(trial, energy=10.0 + trial["batch_size"], metric=1.0, current_epoch=3))
        assert len(of_last) <= ends, (run, of_last)
        with round_trips(app) as of_heartbeat:
            calls.must(calls.heartbeat(trial))
        assert len(of_heartbeat) <= goes_on


@policies
def test_a_reset_and_an_expired_lease_cost_round_trips_only_once(remembering: tuple[Flask, Calls], policy: str) -> None:
    app, calls = remembering
    calls.register(policy=policy)
    calls.converge(calls.trial())
    calls.must(calls.report(calls.trial(), energy=1.0))
    with app.app_context(), connected(db.engine.url.render_as_string(hide_password=False)) as connection:
        connection.exec_driver_sql("UPDATE jobs SET oldest_seen_at = NULL")
    trial = calls.trial()
    with round_trips(app) as sent:
        calls.must(calls.report(trial, energy=1.0))
    assert len(sent) <= GOES_ON[dialect(app)], sent


def test_a_revoked_token_works_for_as_long_as_it_is_remembered(make_app: Callable[..., Flask]) -> None:
    remembers, asks = make_app(auth_cache_s=AUTH_CACHE_S), make_app(auth_cache_s=0)
    with remembers.app_context():
        token = tokens.create("test", tokens.Scope.READ)
        url = db.engine.url.render_as_string(hide_password=False)
    header = {"Authorization": f"Bearer {token}"}

    def statuses() -> list[int]:
        return [app.test_client().get("/jobs", headers=header).status_code for app in (remembers, asks)]

    assert statuses() == [200, 200]
    with connected(url) as connection:  # as another process does
        connection.exec_driver_sql("UPDATE tokens SET revoked_at = created_at")
    assert statuses() == [200, 401]


def test_a_token_that_is_revoked_in_the_servers_own_process_is_refused_at_once(make_app: Callable[..., Flask]) -> None:
    app = make_app(auth_cache_s=AUTH_CACHE_S)
    assert app.test_client().get("/jobs").status_code == 200
    with app.app_context():
        header = {"Authorization": f"Bearer {tokens.create('test', tokens.Scope.READ)}"}
    assert app.test_client().get("/jobs").status_code == 401
    assert app.test_client().get("/jobs", headers=header).status_code == 200
    with app.app_context():
        tokens.revoke("test")
    assert app.test_client().get("/jobs", headers=header).status_code == 401


def test_an_answer_that_a_call_waits_for_while_tokens_change_is_not_remembered(
    make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(auth_cache_s=AUTH_CACHE_S)
    with app.app_context():
        header = {"Authorization": f"Bearer {tokens.create('test', tokens.Scope.READ)}"}
    identify = tokens.identify

    def identify_then_revoke(token: str) -> tokens.TokenInfo | None:
        info = identify(token)
        tokens.revoke("test")
        return info

    with monkeypatch.context() as patched:
        patched.setattr(tokens, "identify", identify_then_revoke)
        assert app.test_client().get("/jobs", headers=header).status_code == 200
    assert app.test_client().get("/jobs", headers=header).status_code == 401


def test_an_unknown_token_is_not_remembered(make_app: Callable[..., Flask]) -> None:
    app = make_app(auth_cache_s=AUTH_CACHE_S)
    client: FlaskClient = app.test_client()
    with app.app_context():
        tokens.create("another", tokens.Scope.READ)
    for _ in range(2):
        with round_trips(app) as sent:
            assert client.get("/jobs", headers={"Authorization": "Bearer bso_unknown"}).status_code == 401
        assert sent
