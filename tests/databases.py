"""Databases for the tests: private servers, new databases on them, and helpers that read, change and count."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pymysql
from flask import Flask
from sqlalchemy import Connection, NullPool, create_engine, event, inspect, make_url, select, text, update

from backend.app import create_app
from backend.config import Settings
from backend.database import schema
from backend.database.extensions import db
from backend.database.models import Job, Trial
from tests import logs

STARTUP_S = 60
MAX_RESERVED = 100
PASSWORD = "s3cret"
"""Password of the users that are no administrators."""

_reserved: deque[socket.socket] = deque()
"""Sockets that hold the last ports which `free_port` has returned."""


def free_port() -> int:
    """Return a TCP port for a server of these tests, which can also listen on it again after it has ended.

    Bound sockets hold the last 100 ports of this process, so no connection and no other test gets one of them while a
    server is down. A server can still listen there if it sets SO_REUSEADDR, or SO_REUSEPORT as the same user.
    """
    holder = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        holder.setsockopt(socket.SOL_SOCKET, option, 1)
    holder.bind(("127.0.0.1", 0))
    _reserved.append(holder)
    if len(_reserved) > MAX_RESERVED:
        _reserved.popleft().close()
    return int(holder.getsockname()[1])


@dataclass
class MariaDB:
    """A MariaDB server for the tests only, or a MySQL in its place."""

    folder: Path
    port: int
    _program: tuple[str | Path, ...]
    _options: tuple[str, ...]
    _variables: dict[str, str]
    _process: "subprocess.Popen[bytes] | None" = None
    _names: Iterator[int] = field(default_factory=count)
    _statements: list[str] = field(default_factory=list)
    _recycled: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """Process id of the server, which must run."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server, and wait until it answers. A restart uses the same port."""
        folder = self.folder
        self._process = subprocess.Popen(
            [
                *(*self._program, f"--datadir={folder}/data", f"--socket={folder}/socket"),
                *(f"--pid-file={folder}/pid", "--bind-address=127.0.0.1", f"--port={self.port}", "--skip-name-resolve"),
                *("--character-set-server=utf8mb4", "--innodb-buffer-pool-size=64M", "--performance-schema=OFF"),
                *("--innodb-flush-log-at-trx-commit=2", f"--log-error={folder}/error.log", *self._options),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._variables,
        )
        deadline = time.monotonic() + STARTUP_S
        while True:
            try:
                return self.execute("SELECT 1")
            except pymysql.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop(signal.SIGKILL)
                    raise RuntimeError(f"the database did not start: {(folder / 'error.log').read_text()}") from None
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the server with a signal, and wait for its end. Nothing happens if it does not run."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()

    def execute(self, *statements: str, database: str | None = None) -> None:
        """Run statements as root."""
        connection = pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", database=database, ssl_disabled=True
        )
        with closing(connection), connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            connection.commit()

    def empty_database(self, character_set: str = "utf8mb4") -> str:
        """Create a database without tables, and return its URL."""
        name = f"zeus_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name} CHARACTER SET {character_set}")
        # The server has no certificate. With SSL, PyMySQL would load all certificate authorities at each connection.
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/{name}?ssl_disabled=true"

    def database(self) -> str:
        """Return the URL of a database with the tables that the migrations create, all empty."""
        if self._recycled:
            return self._recycled.pop()
        if not self._statements:
            self._statements = _statements_of_migrations(self.empty_database())
        url = self.empty_database()
        self.execute(*self._statements, database=make_url(url).database)
        return url

    def limited(self) -> str:
        """Return the URL of a new database, for a user without the privileges of an administrator."""
        url = make_url(self.database())
        user = f"{url.database}_user"
        self.execute(
            f"CREATE USER {user}@'%' IDENTIFIED BY '{PASSWORD}'",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {url.database}.* TO {user}@'%'",
        )
        return url.set(username=user, password=PASSWORD).render_as_string(hide_password=False)

    def set_read_only(self, read_only: bool) -> None:
        """Refuse or take the writes of users that are no administrators."""
        self.execute(f"SET GLOBAL read_only = {int(read_only)}")

    def connections(self, url: str) -> list[int]:
        """Return the numbers of the connections to a database."""
        statement = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id != CONNECTION_ID()"
        with connected(url) as connection:
            return list(connection.exec_driver_sql(statement).scalars())

    def drop_connection(self, number: int) -> None:
        """End a connection. Nothing happens if it has ended."""
        with suppress(pymysql.OperationalError):
            self.execute(f"KILL {number}")

    def recycle(self, url: str) -> None:
        """Empty a database's tables, so that `database` can return it again. This is faster than a new database."""
        statements = ["SET foreign_key_checks = 0"]
        with connected(url) as connection:
            statements += [f"DELETE FROM {table}" for table in inspect(connection).get_table_names()]
        self.execute(*statements, self._statements[-1], database=make_url(url).database)
        self._recycled.append(url)


def start_mariadb(folder: Path, *options: str, **variables: str) -> MariaDB:
    """Create a server with its data in `folder`, start it, and wait until it answers.

    Args:
        folder: an empty folder.
        options: options of `mariadbd`, beside those that all tests use.
        variables: environment variables for `mariadbd`.
    """
    missing = [name for name in ("mariadb-install-db", "mariadbd") if shutil.which(name) is None]
    if missing:
        raise RuntimeError(f"{', '.join(missing)} not found; install Debian's package mariadb-server")
    # A separate folder, because a starting server removes all temporary tables in it, also those of other servers.
    temporary = folder / "tmp"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary)}
    subprocess.run(
        [
            *("mariadb-install-db", "--no-defaults", f"--datadir={folder}/data", "--user=root"),
            *("--skip-test-db", "--auth-root-authentication-method=normal"),
        ],
        check=True,
        capture_output=True,
        env=environment,
    )
    program = ("mariadbd", "--no-defaults", "--user=root")
    server = MariaDB(folder, free_port(), program, options, environment | variables)
    server.start()
    return server


def start_mysql(folder: Path, files: Path) -> MariaDB:
    """Do the same as `start_mariadb` with Oracle's MySQL.

    Args:
        folder: an empty folder.
        files: the contents of the packages that `.ci/mysql-tests` has unpacked. They may need newer libraries than the
            system has, so they bring their own.
    """
    libraries = files / "usr/lib/x86_64-linux-gnu"
    administrator = folder / "administrator.sql"
    administrator.write_text("CREATE USER root@'127.0.0.1';\nGRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n")
    program = (
        *(libraries / "ld-linux-x86-64.so.2", "--library-path", libraries, files / "usr/sbin/mysqld"),
        *("--no-defaults", "--user=root", "--secure-file-priv=NULL", "--mysqlx=OFF"),
        f"--lc-messages-dir={files}/usr/share/mysql",
    )
    first = [*program, f"--datadir={folder}/data", "--initialize-insecure", f"--init-file={administrator}"]
    subprocess.run(first, check=True, capture_output=True)
    server = MariaDB(folder, free_port(), program, ("--sync-binlog=0",), dict(os.environ))
    server.start()
    return server


@dataclass
class PostgreSQL:
    """A PostgreSQL server for the tests only. It does not run as root, which it refuses."""

    folder: Path
    port: int
    _options: tuple[str, ...]
    _variables: dict[str, str]
    _process: "subprocess.Popen[bytes] | None" = None
    _names: Iterator[int] = field(default_factory=count)
    _template: str | None = None
    _version: str | None = None
    _recycled: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """Process id of the server, which must run."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server, and wait until it answers. A restart uses the same port."""
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": ""}
        settings |= {"shared_buffers": "32MB", "fsync": "off", "autovacuum": "off", "timezone": "Asia/Kathmandu"}
        options = [f"--{name}={value}" for name, value in settings.items()]
        log = self.folder / "error.log"
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [_postgresql_program("postgres"), "-D", self.folder / "data", *options, *self._options],
                stdout=errors,
                stderr=errors,
                env=self._variables,
                **_NOT_ROOT,
            )
        deadline = time.monotonic() + STARTUP_S
        while True:
            try:
                return self.execute("SELECT 1")
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop(signal.SIGKILL)
                    raise RuntimeError(f"postgres did not start: {log.read_text()}") from None
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server with a signal, and wait for its end. Nothing happens if it does not run."""
        if self._process is None or self._process.poll() is not None:
            return
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        self._process.send_signal(how)
        self._process.wait()
        while any(Path(f"/proc/{child}").exists() for child in children):  # they notice it when they are idle
            time.sleep(0.01)

    def execute(self, *statements: str, database: str | None = None) -> None:
        """Run statements as the superuser, each in a transaction of its own."""
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="root", dbname=database or "postgres", autocommit=True
        ) as connection:
            for statement in statements:
                connection.execute(statement)

    def empty_database(self, template: str = "template0") -> str:
        """Create a database without tables, or a copy of another database, and return its URL."""
        name = f"zeus_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return f"postgresql+psycopg://root@127.0.0.1:{self.port}/{name}"

    def database(self) -> str:
        """Return the URL of a database with the tables that the migrations create, all empty."""
        if self._recycled:
            return self._recycled.pop()
        if self._template is None:
            url = self.empty_database()
            migrate(url)
            with connected(url) as connection:
                self._version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
            self._template = make_url(url).database
        return self.empty_database(str(self._template))

    def limited(self) -> str:
        """Return the URL of a new database, for a user without the privileges of an administrator."""
        url = make_url(self.database())
        user = f"{url.database}_user"
        self.execute(
            f"CREATE USER {user} PASSWORD '{PASSWORD}'",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {user}",
            database=url.database,
        )
        return url.set(username=user, password=PASSWORD).render_as_string(hide_password=False)

    def set_read_only(self, read_only: bool) -> None:
        """Refuse or take writes."""
        value = "on" if read_only else "off"
        self.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}", "SELECT pg_reload_conf()")

    def connections(self, url: str) -> list[int]:
        """Return the numbers of the connections to a database."""
        statement = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid != pg_backend_pid()"
        with connected(url) as connection:
            return list(connection.exec_driver_sql(statement).scalars())

    def drop_connection(self, number: int) -> None:
        """End a connection. Nothing happens if it has ended."""
        self.execute(f"SELECT pg_terminate_backend({number})")

    def recycle(self, url: str) -> None:
        """Empty a database's tables, so that `database` can return it again. This is faster than a new database."""
        tables = [f"DELETE FROM {table.name}" for table in reversed(db.metadata.sorted_tables)]
        version = f"UPDATE alembic_version SET version_num = '{self._version}'"
        self.execute("; ".join([*tables, version]), database=make_url(url).database)
        self._recycled.append(url)


DatabaseServer = MariaDB | PostgreSQL
"""A database server for the tests."""

_NOT_ROOT: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": ()} if os.geteuid() == 0 else {}


def _postgresql_program(name: str) -> str:
    """Return the path of a program of PostgreSQL. Debian has the server's programs outside of the usual path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    program = shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, reversed(folders))))
    if program is None:
        raise RuntimeError(f"{name} not found; install Debian's package postgresql")
    return program


@contextmanager
def _postgresql_folder() -> Iterator[Path]:
    """Create a folder for a server, and remove it at the end."""
    # The folders of pytest are for the user alone who runs the tests.
    with TemporaryDirectory(prefix="bso-postgresql-") as name:
        if _NOT_ROOT:
            shutil.chown(name, _NOT_ROOT["user"], _NOT_ROOT["group"])
        yield Path(name)


@contextmanager
def postgresql_server(*options: str, **variables: str) -> Iterator[PostgreSQL]:
    """Run a server with a data folder of its own.

    Args:
        options: options of `postgres`, beside those that all tests use.
        variables: environment variables for `postgres`.
    """
    with _postgresql_folder() as folder:
        subprocess.run(
            [
                *(_postgresql_program("initdb"), "--pgdata", folder / "data", "--username=root", "--auth=trust"),
                *("--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            cwd=folder,
            **_NOT_ROOT,
        )
        (folder / "data/pg_hba.conf").write_text(
            "host all root 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        server = PostgreSQL(folder, free_port(), options, dict(os.environ) | variables)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def postgresql_standby(primary: PostgreSQL) -> Iterator[PostgreSQL]:
    """Run a synchronous standby: from now on, the primary waits for it at each commit."""
    rules = primary.folder / "data/pg_hba.conf"
    rules.write_text(rules.read_text() + "host replication root 127.0.0.1/32 trust\n")
    primary.execute("SELECT pg_reload_conf()")
    with _postgresql_folder() as folder:
        subprocess.run(
            [
                *(_postgresql_program("pg_basebackup"), "--pgdata", folder / "data", "--write-recovery-conf"),
                *("--checkpoint=fast", "--no-sync", f"--dbname=host=127.0.0.1 port={primary.port} user=root"),
            ],
            check=True,
            cwd=folder,
            **_NOT_ROOT,
        )
        standby = PostgreSQL(folder, free_port(), (), dict(os.environ))
        try:
            standby.start()
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
            yield standby
        finally:
            standby.stop()


def migrate(url: str) -> None:
    """Create the tables of a database with the migrations."""
    with logs.restored():
        app = create_app(Settings(database_url=url, log_level="ERROR"), prepare_database=False)
    with app.app_context():
        schema.upgrade()
        db.engine.dispose()


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Open a connection to a database, in a transaction that commits at the end."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        yield connection


@contextmanager
def in_application(url: str) -> Iterator[None]:
    """Enter the context of an application over a database, which use cases require."""
    with logs.restored():
        app = create_app(Settings(database_url=url, log_level="CRITICAL"))
    with app.app_context():
        try:
            yield
        finally:
            db.engine.dispose()


@contextmanager
def round_trips(app: Flask) -> Iterator[list[str]]:
    """List the statements, commits and rollbacks that an application sends.

    A BEGIN is none: MySQL's is implicit, and PostgreSQL's driver sends one before the job is locked.
    """
    sent: list[str] = []

    def execute(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith("BEGIN"):
            sent.append(statement)

    listeners = [
        ("before_cursor_execute", execute),
        ("commit", lambda _: sent.append("COMMIT")),
        ("rollback", lambda _: sent.append("ROLLBACK")),
    ]
    with app.app_context():
        engine = db.engine
    for name, listener in listeners:
        event.listen(engine, name, listener)
    try:
        yield sent
    finally:
        for name, listener in listeners:
            event.remove(engine, name, listener)


def dump(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of a database by table, in a fixed order."""
    with connected(url) as connection:
        return {
            table: sorted((tuple(row) for row in connection.execute(text(f"SELECT * FROM {table}"))), key=repr)
            for table in inspect(connection).get_table_names()
        }


def let_time_pass(url: str, job_id: str, trial_number: int, seconds: float) -> None:
    """Move the time at which a trial was last seen back by some seconds."""
    job = select(Job.id).where(Job.job_id == job_id).scalar_subquery()
    is_trial = (Trial.job == job, Trial.number == trial_number)
    with connected(url) as connection:
        last_seen = connection.execute(select(Trial.last_seen_at).where(*is_trial)).scalar_one()
        before = last_seen - timedelta(seconds=seconds)
        connection.execute(update(Trial).where(*is_trial).values(last_seen_at=before))
        connection.execute(update(Job).where(Job.job_id == job_id).values(oldest_seen_at=before))


def revision(url: str, job_id: str) -> int:
    """Return how many calls have changed a job."""
    with connected(url) as connection:
        return connection.execute(select(Job.revision).where(Job.job_id == job_id)).scalar_one()


def _statements_of_migrations(url: str) -> list[str]:
    """Return the statements that create what the migrations create. They run much faster than the migrations."""
    migrate(url)
    with connected(url) as connection:
        tables = [
            connection.execute(text(f"SHOW CREATE TABLE {table}")).one()[1]
            for table in inspect(connection).get_table_names()
        ]
        version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    return ["SET foreign_key_checks = 0", *tables, f"INSERT INTO alembic_version VALUES ('{version}')"]
