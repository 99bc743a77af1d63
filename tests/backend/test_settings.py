"""Settings: their sources, and the errors about invalid settings."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from backend.app import create_app
from backend.config import Settings, SettingsError, load_settings, unknown_variables
from lightning_bso import variables
from tests.calls import Calls
from tests.servers import backend


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_wrong_setting_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"DATABASE_URL": "postgres://host/db", "SERVER_PORT": "70000", "LEASE_S": "-1", "LOG_LEVEL": "LOUD"}
    for name, value in wrong.items():
        monkeypatch.setenv(f"ZEUS_BSO_{name}", value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    for name in wrong:
        assert f"ZEUS_BSO_{name}" in str(refused.value)


def test_the_command_names_every_wrong_setting_without_a_traceback(tmp_path: Path) -> None:
    done = backend("serve", folder=tmp_path, ZEUS_BSO_LEASE_S="soon", ZEUS_BSO_LOG_FORMAT="xml")
    assert done.returncode == 1
    assert "ZEUS_BSO_LEASE_S" in done.stderr
    assert "ZEUS_BSO_LOG_FORMAT" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql+x://",
        "oracle+oracledb://u:s3cret@h/d",
        "oracle2://h/d",
    ],
)
def test_a_database_url_that_cannot_work_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="ZEUS_BSO_DATABASE_URL") as refused:
        load_settings(database_url=url)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["mysql+pymysql:/u:s3cret@h/d", "mysql+pymysql://u:s3cret@h:port/d", "u:s3cret@h", "mysql+pymysql//u:s3cret@h/d"],
)
def test_a_malformed_database_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match="ZEUS_BSO_DATABASE_URL") as refused:
        load_settings(database_url=url)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mysql+mysqldb://u:s3cret@h/d", "is not installed"),
        ("postgresql+pgx://u:s3cret@h/d", "SQLAlchemy does not know"),
        ("sqlite+aiosqlite:///bso.db", "is asynchronous"),
        ("postgresql+psycopg_async://u:s3cret@h/d", "is asynchronous"),
        ("mssql+pyodbc://u:s3cret@h/d", "take NULL only once"),
        ("oracle+oracledb://u:s3cret@h/d", "an empty text as NULL"),
    ],
)
def test_the_refusal_of_a_database_url_says_why(url: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why) as refused:
        load_settings(database_url=url)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(("name", "driver"), [("mysql", "pymysql"), ("mariadb", "pymysql"), ("postgresql", "psycopg")])
def test_a_database_url_without_a_driver_gets_the_tested_one(name: str, driver: str) -> None:
    settings = load_settings(database_url=f"{name}://u:p@h/d")
    assert settings.database.drivername == f"{name}+{driver}"


@pytest.mark.parametrize("lease_s", [0.001, 1e9, 1e11, 1e15, 1e300])
def test_a_lease_is_refused_or_works(lease_s: float, tmp_path: Path) -> None:
    try:
        settings = Settings(database_url=f"sqlite:///{tmp_path}/bso.db", lease_s=lease_s, log_level="CRITICAL")
    except ValueError:
        return
    client: FlaskClient = create_app(settings).test_client()
    calls = Calls.through_test_client(client)
    calls.register()
    assert calls.ask().status == 200


def test_an_option_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("ZEUS_BSO_SERVER_PORT=1\nZEUS_BSO_LEASE_S=1\nZEUS_BSO_LOG_LEVEL=error\n")
    monkeypatch.setenv("ZEUS_BSO_SERVER_PORT", "2")
    monkeypatch.setenv("ZEUS_BSO_LEASE_S", "2")
    settings = load_settings(server_port=3, lease_s=None)
    assert (settings.server_port, settings.lease_s, settings.log_level) == (3, 2.0, "ERROR")


def test_a_folder_of_secrets_that_does_not_exist_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEUS_BSO_SECRETS_DIR", str(tmp_path / "misspelt"))
    with pytest.raises(SettingsError, match="misspelt', which does not exist"):
        load_settings()


def test_a_secret_may_be_a_file_and_an_empty_variable_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "ZEUS_BSO_DB_PASSWORD").write_text("in a file\n")
    monkeypatch.setenv("ZEUS_BSO_SECRETS_DIR", str(secrets))
    monkeypatch.setenv("ZEUS_BSO_DB_PASSWORD", "")
    url = "mysql+pymysql://u@host/zeus"
    assert load_settings(database_url=url).database.password == "in a file"
    assert "ZEUS_BSO_SECRETS_DIR" not in unknown_variables()
    monkeypatch.setenv("ZEUS_BSO_DB_PASSWORD", "in a variable")
    assert load_settings(database_url=url).database.password == "in a variable"


def test_user_and_password_may_come_apart_from_the_url() -> None:
    settings = load_settings(database_url="mysql+pymysql://host/zeus", db_user="someone", db_password="p@ss/w:rd#%")
    assert (settings.database.username, settings.database.password) == ("someone", "p@ss/w:rd#%")
    assert "p@ss" not in repr(settings)
    both = load_settings(database_url="mysql+pymysql://u:p@host/zeus", db_user="x", db_password="y")
    assert (both.database.username, both.database.password) == ("u", "p")


def test_a_password_in_the_url_is_not_shown_with_the_settings() -> None:
    settings = load_settings(database_url="mysql+pymysql://u:s3cret@host/zeus")
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings)


def test_a_misspelt_variable_is_found_in_the_environment_and_in_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("ZEUS_BSO_LEASE=5\nZEUS_BSO_LEASE_S=60\nOTHER=1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZEUS_BSO_DATABSE_URL", "sqlite:///x.db")
    monkeypatch.setenv("ZEUS_BSO_SERVER_URL", "http://127.0.0.1:8000")
    assert unknown_variables() == ["ZEUS_BSO_DATABSE_URL", "ZEUS_BSO_LEASE"]


@pytest.mark.parametrize("name", [name for name in vars(variables) if name.isupper()])
def test_a_variable_of_a_training_is_not_misspelt(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(getattr(variables, name), "1")
    assert unknown_variables() == []
