"""Entries of the audit log cannot be changed or deleted."""

import re
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from backend.app import create_app
from backend.config import Settings
from backend.database.extensions import db
from backend.usecases import tokens, users
from backend.usecases.audit import COMMAND_LINE
from backend.usecases.tokens import Scope
from backend.usecases.users import Role
from tests.calls import Calls
from tests.databases import DatabaseServer, MariaDB, connected, dump
from tests.logins import PASSWORD, log_in
from tests.servers import ROOT

REPLACE = {
    "sqlite": "REPLACE INTO audit SELECT * FROM audit",
    "mariadb": "REPLACE INTO audit SELECT * FROM audit",
    "postgresql": "INSERT INTO audit SELECT * FROM audit ON CONFLICT (id) DO UPDATE SET actor = 'somebody else'",
}
CHANGES = ["UPDATE audit SET actor = 'somebody else'", "DELETE FROM audit", "REPLACE"]
GRANTS = re.findall(r"^    (GRANT .*);$", (ROOT / "docs/server.md").read_text(), re.MULTILINE)
GRANTS_MYSQL = [grant for grant in GRANTS if "@" in grant]
GRANTS_POSTGRESQL = [grant for grant in GRANTS if "@" not in grant]


def app_of(url: str) -> Flask:
    return create_app(Settings(database_url=url, log_level="CRITICAL"))


def granted_url(server: DatabaseServer) -> str:
    """Return the URL of a new database, with an account that has the rights from the documentation."""
    url = make_url(server.database())
    account = f"{url.database}_server"
    if isinstance(server, MariaDB):
        server.execute(
            f"CREATE USER {account}@'%' IDENTIFIED BY '{PASSWORD}'",
            *(
                grant.replace("ON zeus.", f"ON {url.database}.").replace("TO bso@", f"TO {account}@")
                for grant in GRANTS_MYSQL
            ),
        )
    else:
        server.execute(
            f"CREATE USER {account} PASSWORD '{PASSWORD}'",
            *(grant.replace("TO bso", f"TO {account}") for grant in GRANTS_POSTGRESQL),
            database=url.database,
        )
    return url.set(username=account, password=PASSWORD).render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def protected_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that protects its audit log."""
    return f"sqlite:///{tmp_path}/bso.db" if request.param == "sqlite" else granted_url(_server(request))


def _server(request: pytest.FixtureRequest) -> DatabaseServer:
    server: DatabaseServer = request.getfixturevalue(request.param)
    return server


@pytest.mark.parametrize("change", CHANGES)
def test_the_audit_log_refuses_to_be_changed(protected_url: str, change: str) -> None:
    kind = {"mysql": "mariadb"}.get(system := make_url(protected_url).get_backend_name(), system)
    change = REPLACE[kind] if change == "REPLACE" else change
    Calls.through_test_client(app_of(protected_url).test_client()).register()
    before = dump(protected_url)["audit"]
    with pytest.raises(DBAPIError), connected(protected_url) as connection:
        connection.execute(text(change))
    assert dump(protected_url)["audit"] == before != []


def test_everything_works_with_the_rights_that_the_documentation_grants(protected_url: str) -> None:
    app = app_of(protected_url)
    calls = Calls.through_test_client(app.test_client())
    calls.register(policy="gp-ucb")
    calls.converge(calls.trial())
    assert calls.end(calls.trial()).status == 200
    assert calls.reset().status == 200
    assert calls.delete().status == 200
    with app.app_context():
        users.create("ada", PASSWORD, Role.ADMIN, COMMAND_LINE)
        users.change("ada", COMMAND_LINE, role=Role.VIEWER)
        tokens.create("t", Scope.READ)
        tokens.revoke("t")
    client = app.test_client()
    assert log_in(client, "ada", "wrong").status_code == 401
    assert log_in(client, "ada").status_code == 302
    assert client.get("/admin/trials/").status_code == 200


def test_the_documentation_grants_rights_on_every_table() -> None:
    tables = {*db.metadata.tables, "alembic_version"}
    assert {match[1] for grant in GRANTS_MYSQL if (match := re.search(r"ON zeus\.(\w+) ", grant))} == tables
    lists = [match[1] for grant in GRANTS_POSTGRESQL if (match := re.search(r" ON ((?:\w+, )*\w+) TO", grant))]
    assert {table for tables_of in lists for table in tables_of.split(", ")} == tables
