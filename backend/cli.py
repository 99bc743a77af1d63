"""The command line, `python -m backend`. Each command reads the settings, calls a use case and prints the result.

A result is a record, which `--json` prints, and a sentence or table about it. A refusal goes to standard error.

No rule lives here. Next: `backend.usecases`. The command `simulate` lives in `backend.simulator.cli`.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from typing import Any

import click
import flask_migrate
import structlog
from flask import Flask

from lightning_bso.quantities import count

from . import COMMAND
from .app import create_app
from .config import Settings, SettingsError, load_settings, unknown_variables
from .database import schema
from .errors import DatabaseUnavailable, DatabaseUnusable, SchemaOutdated, ServiceError
from .simulator.cli import simulate
from .usecases import reading, retention, tokens, users
from .usecases.audit import COMMAND_LINE, jobs_of
from .usecases.tokens import MAX_VALID_DAYS, Scope
from .usecases.users import Role
from .web import serving
from .web.auth import is_guarded, is_loopback

log = structlog.get_logger(__name__)

database_url = click.option(
    "--database-url", help="URL of the database.  [default: $ZEUS_BSO_DATABASE_URL, else sqlite:///zeus_bso.db]"
)

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON with all fields.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("lightning-bso"), prog_name="lightning-bso", message="%(prog)s %(version)s")
def main() -> None:
    """The batch-size optimizer's server."""


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on, 0: a free one.  [default: $ZEUS_BSO_SERVER_PORT, else 8000]")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Worker processes. One is enough for SQLite, which takes one write at a time.",
)
@database_url
@click.option(
    "--insecure-open",
    is_flag=True,
    help="Answer other machines even without access tokens. Anyone may then change the data.",
)
def serve(host: str, port: int | None, workers: int, database_url: str | None, insecure_open: bool) -> None:
    """Run the server until it is stopped (Ctrl-C, SIGTERM)."""
    app, settings = _app(database_url, server_port=port, insecure_open=insecure_open or None)
    for variable in unknown_variables():
        log.warning("unknown_setting", variable=variable)
    if not is_loopback(host):
        _warn_of_other_machines(app, host, insecure=settings.insecure_open)

    def announce(listening_port: int) -> None:
        url = f"http://[{host}]:{listening_port}" if ":" in host else f"http://{host}:{listening_port}"
        click.echo(f"Listening on {url}")
        click.echo(f"Data in {settings.database.render_as_string(hide_password=True)}")
        click.echo(f"Admin page: {url}/admin")
        click.echo(f"API documentation: {url}/openapi/swagger")
        sys.stdout.flush()

    try:
        make_app = partial(_worker_app, settings, app.secret_key)
        serving.serve(make_app, host, settings.server_port, workers=workers, announce=announce)
    except serving.CannotListen as error:
        raise click.ClickException(str(error)) from error


@main.group()
def db() -> None:
    """Manage the database's schema."""


@db.command()
@_as_json
@database_url
def upgrade(as_json: bool, database_url: str | None) -> None:
    """Upgrade the schema to this version of the program, and check that the database takes writes. Back it up first."""
    app, _ = _app(database_url, prepare_database=False)
    with app.app_context():
        try:
            schema.upgrade()
            schema.check_writable()
        except (DatabaseUnavailable, DatabaseUnusable, SchemaOutdated) as error:
            raise click.ClickException(str(error)) from error
        version = schema.current_version()
    _print({"schema_version": version}, f"The schema version is {version}.", as_json=as_json)


@db.command()
@_as_json
@database_url
def check(as_json: bool, database_url: str | None) -> None:
    """Exit with 0 if the database answers, has the schema of this version of the program and takes writes."""
    app, _ = _app(database_url, prepare_database=False)
    with app.app_context():
        try:
            schema.check()
            schema.check_writable()
        except (SchemaOutdated, DatabaseUnavailable) as error:
            raise click.ClickException(str(error)) from error
        version = schema.current_version()
    _print({"schema_version": version}, f"The schema version is {version}, as required.", as_json=as_json)


@db.command()
@click.option("-m", "--message", required=True, help="What the migration changes.")
@database_url
def migrate(message: str, database_url: str | None) -> None:
    """Generate a migration from the differences between models and database (for developers)."""
    app, _ = _app(database_url, prepare_database=False)
    with app.app_context():
        flask_migrate.migrate(message=message)


@main.group()
def token() -> None:
    """Manage access tokens. Once a token exists, every call needs one."""


@token.command()
@click.option("--label", required=True, help="What the token is for. The token is revoked by this label.")
@click.option(
    "--scope", type=click.Choice([scope.value for scope in Scope]), default=Scope.RUN.value, show_default=True
)
@click.option(
    "--valid-days", type=float, help=f"Days until the token expires, 1 to {MAX_VALID_DAYS}.  [default: never]"
)
@click.option("--prefix", help="Limit the token to jobs whose ids start with this.  [default: all jobs]")
@_as_json
@database_url
def create(
    label: str, scope: str, valid_days: float | None, prefix: str | None, as_json: bool, database_url: str | None
) -> None:
    """Create a token and print it. The server stores only its hash, so it cannot be printed again."""
    app, _ = _app(database_url)
    with app.app_context(), _report_errors():
        secret = tokens.create(label, Scope(scope), valid_days=valid_days, job_id_prefix=prefix)
    _print({"label": label, "scope": scope, "job_id_prefix": prefix, "token": secret}, secret, as_json=as_json)


@token.command(name="list")
@_as_json
@database_url
def list_tokens(as_json: bool, database_url: str | None) -> None:
    """List the tokens by their labels."""
    app, _ = _app(database_url)
    with app.app_context():
        infos = tokens.list_all()
    rows = [("LABEL", "SCOPE", "JOBS", "CREATED (UTC)", "STATE")]
    for info in infos:
        expires = f"{'expired' if info.expired else 'expires'} {info.expires_at or 'never'}"
        state = f"revoked {info.revoked_at:%F %R}" if info.revoked_at else expires
        jobs = "all" if info.job_id_prefix is None else f"{info.job_id_prefix}…"
        rows.append((info.label, info.scope, jobs, f"{info.created_at:%F %R}", state))
    _print([asdict(info) for info in infos], _table(rows), as_json=as_json)


@token.command()
@click.option("--label", required=True)
@_as_json
@database_url
def revoke(label: str, as_json: bool, database_url: str | None) -> None:
    """Revoke the token with a label."""
    app, _ = _app(database_url)
    with app.app_context(), _report_errors():
        tokens.revoke(label)
    _print({"label": label}, f"Revoked: {label}", as_json=as_json)


@main.group()
def user() -> None:
    """Manage the users of the admin page. Once a user exists, the page needs a login."""


_role = click.Choice([role.value for role in Role])
_user_prefix = click.option("--prefix", help="Limit the user to jobs whose ids start with this.")
_password = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input, not from the terminal."
)


@user.command(name="create")
@click.argument("name")
@click.option("--role", type=_role, default=Role.VIEWER.value, show_default=True)
@_user_prefix
@_password
@click.option("--no-password", is_flag=True, help="Let the user log in at a trusted proxy only (ZEUS_BSO_AUTH_HEADER).")
@_as_json
@database_url
def create_user(
    name: str,
    role: str,
    prefix: str | None,
    password_stdin: bool,
    no_password: bool,
    as_json: bool,
    database_url: str | None,
) -> None:
    """Create a user. Without --prefix the user sees all jobs."""
    app, _ = _app(database_url)
    password = None if no_password else _read_password(from_stdin=password_stdin)
    with app.app_context(), _report_errors():
        users.create(name, password, Role(role), COMMAND_LINE, job_id_prefix=prefix)
        account = _account(name)
    _print(account, f"Created: {name}, {role}, {jobs_of(prefix)}", as_json=as_json)


@user.command(name="list")
@_as_json
@database_url
def list_users(as_json: bool, database_url: str | None) -> None:
    """List the users."""
    app, _ = _app(database_url)
    with app.app_context():
        accounts = users.list_all()
    rows = [("NAME", "ROLE", "JOBS", "CREATED (UTC)", "STATE")]
    for account in accounts:
        state = f"disabled {account.disabled_at:%F %R}" if account.disabled_at else "enabled"
        jobs = "all" if account.job_id_prefix is None else f"{account.job_id_prefix}…"
        rows.append((account.name, account.role, jobs, f"{account.created_at:%F %R}", state))
    _print([asdict(account) for account in accounts], _table(rows), as_json=as_json)


@user.command(name="change")
@click.argument("name")
@click.option("--role", type=_role)
@_user_prefix
@click.option("--all-jobs", is_flag=True, help="Lift the limit to some jobs.")
@click.option("--password", is_flag=True, help="Ask for a new password.")
@_password
@click.option("--disable/--enable", default=None, help="Whether the user may log in.")
@_as_json
@database_url
def change_user(
    name: str,
    role: str | None,
    prefix: str | None,
    all_jobs: bool,
    password: bool,
    password_stdin: bool,
    disable: bool | None,
    as_json: bool,
    database_url: str | None,
) -> None:
    """Change a user, and end all its sessions."""
    if role is None and prefix is None and disable is None and not (all_jobs or password or password_stdin):
        raise click.UsageError(
            "nothing to change; give --role, --prefix, --all-jobs, --password, --password-stdin, --disable or --enable"
        )
    if all_jobs and prefix is not None:
        raise click.UsageError("--prefix and --all-jobs exclude each other; give one of them")
    app, _ = _app(database_url)
    new_password = _read_password(from_stdin=password_stdin) if password or password_stdin else None
    with app.app_context(), _report_errors():
        new_role = None if role is None else Role(role)
        users.change(
            name,
            COMMAND_LINE,
            password=new_password,
            role=new_role,
            job_id_prefix=prefix,
            all_jobs=all_jobs,
            disabled=disable,
        )
        account = _account(name)
    _print(account, f"Changed: {name}; its sessions have ended", as_json=as_json)


@main.command()
@click.argument("job_id")
@_as_json
@database_url
def replay(job_id: str, as_json: bool, database_url: str | None) -> None:
    """Replay every decision on a job; exit with 0 if all replayed decisions equal the stored ones."""
    app, _ = _app(database_url)
    with app.app_context():
        try:
            trials, differences = reading.replay_job(job_id)
        except ServiceError as error:
            raise click.ClickException(str(error)) from error
    if differences and not as_json:
        raise click.ClickException("\n".join(differences))
    said = f"All decisions on {count(trials, 'trial')} of {job_id} follow from the stored data."
    _print({"job_id": job_id, "trials": trials, "differences": differences}, said, as_json=as_json)
    if differences:
        sys.exit(1)


_older_than = click.option(
    "--older-than",
    "days",
    type=click.IntRange(1, 36500),
    required=True,
    metavar="DAYS",
    help="Age in days, by the database's clock.",
)
_dry_run = click.option("--dry-run", is_flag=True, help="Only count what would be removed.")


@main.command("prune-reports")
@_older_than
@_dry_run
@_as_json
@database_url
def prune_reports(days: int, dry_run: bool, as_json: bool, database_url: str | None) -> None:
    """Remove the reports of trials that ended long ago. The trials, their totals and their last reports stay."""
    app, _ = _app(database_url)
    with app.app_context(), _report_errors():
        removed = retention.prune_reports(days, COMMAND_LINE, dry_run=dry_run)
    said = (
        f"Trials that ended before {removed.before:%F %R} UTC and had more than one report: {removed.trials}\n"
        f"Reports {_removed(dry_run=dry_run)}: {removed.reports}"
    )
    record = {"before": removed.before, "trials": removed.trials, "reports": removed.reports, "dry_run": dry_run}
    _print(record, said, as_json=as_json)


@main.command("prune-audit")
@_older_than
@_dry_run
@_as_json
@database_url
def prune_audit(days: int, dry_run: bool, as_json: bool, database_url: str | None) -> None:
    """Remove old entries of the audit log. An entry records that."""
    app, _ = _app(database_url)
    with app.app_context(), _report_errors():
        removed = retention.prune_audit(days, COMMAND_LINE, dry_run=dry_run)
    said = f"Entries from before {removed.before:%F %R} UTC {_removed(dry_run=dry_run)}: {removed.entries}"
    _print({"before": removed.before, "entries": removed.entries, "dry_run": dry_run}, said, as_json=as_json)


main.add_command(simulate)


def _print(result: object, said: str, *, as_json: bool) -> None:
    """Print a command's result as text, or with --json as JSON. Times of the JSON end with the offset of UTC."""

    def text(time: datetime) -> str:
        return time.replace(tzinfo=UTC).isoformat()

    click.echo(json.dumps(result, indent=2, default=text) if as_json else said)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Return lines of cells in columns. The first line is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(map(str.rstrip, lines))


def _account(name: str) -> dict[str, object]:
    """Return a user as `user list --json` prints it."""
    return next(asdict(account) for account in users.list_all() if account.name == name)


def _removed(*, dry_run: bool) -> str:
    return "that would be removed" if dry_run else "removed"


def _read_password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


@contextmanager
def _report_errors() -> Iterator[None]:
    """Print a use case's refusal as an error message instead of a traceback."""
    try:
        yield
    except ServiceError as error:
        raise click.ClickException(str(error)) from error


def _app(database_url: str | None, *, prepare_database: bool = True, **overrides: Any) -> tuple[Flask, Any]:
    try:
        settings = load_settings(database_url=database_url, **overrides)
        return create_app(settings, prepare_database=prepare_database), settings
    except (SettingsError, SchemaOutdated, DatabaseUnavailable, DatabaseUnusable) as error:
        raise click.ClickException(str(error)) from error


def _worker_app(settings: Settings, secret_key: str | bytes | None) -> Flask:
    """Make the application of a worker process. It needs no database, so a worker can be replaced without one."""
    app = create_app(settings, prepare_database=False)
    app.secret_key = secret_key
    return app


def _warn_of_other_machines(app: Flask, host: str, *, insecure: bool) -> None:
    """Warn about an address that other machines reach.

    Args:
        app: the application.
        host: the address to listen on.
        insecure: whether the server answers everyone as long as there are neither tokens nor users.
    """
    with app.app_context():
        guarded = is_guarded()
    if guarded:
        warning = (
            f"other machines can reach {host}, and this server speaks plain HTTP: passwords and tokens travel "
            "unencrypted. Put a proxy with TLS in front of it."
        )
    elif insecure:
        warning = f"anyone who reaches {host} may read and change the data, because there are no tokens or users."
    else:
        warning = (
            f"there is no access token yet, so on {host} the server answers nobody. Create a token ({COMMAND} token "
            "create --label … --scope run), or allow open access with --insecure-open."
        )
    click.echo(f"WARNING: {warning}", err=True)
