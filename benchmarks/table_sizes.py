"""Measure how much a database grows with each job, trial, report and audit entry, and how fast old reports go.

    python -m benchmarks.table_sizes [--jobs 20] [--trials 150] [--reports 20]

It trains through the service, without HTTP, on an SQLite file and on a MariaDB of its own. The size of a row is that of
its table and its indexes, divided by the number of rows. Then it prunes all reports but the last of each trial.
"""

import argparse
import contextlib
import tempfile
import time
from datetime import datetime
from pathlib import Path

from sqlalchemy import func, inspect, select, text, update

from backend.database.extensions import db
from backend.database.models import AuditEntry, Job, Report, Trial
from backend.usecases import jobs, retention, runs
from backend.usecases.audit import COMMAND_LINE
from lightning_bso.wire import RegisteredJobSpec, ReportRequest
from tests.databases import in_application, migrate, start_mariadb

LEASE_S = 3600.0
MODELS = (Job, Trial, Report, AuditEntry)
HOST = "gpu-node-017.cluster.example"
LONG_AGO = datetime(1990, 1, 1)


def train(job_id: str, trials: int, reports: int) -> None:
    """Run a job of eight batch sizes. Each run converges at its last report, with names of usual length."""
    sizes = [16 * 2**n for n in range(8)]
    spec = RegisteredJobSpec(
        job_id=job_id,
        job_id_prefix=job_id,
        batch_sizes=sizes,
        default_batch_size=128,
        target_metric=0.9,
        max_epochs=1000,
        max_power=700.0,
        number_of_gpus=8,
        gpu_model="NVIDIA H200",
        policy="gp-ucb",
    )
    jobs.register(spec, by=COMMAND_LINE)
    for number in range(trials):
        run_id = f"train-{number}-5f0c1be2-8a45-4ac1-9d5e-7d7a9cbf1b60"
        ask = runs.ask(job_id, run_id, host=HOST, process="4711-1764", by=COMMAND_LINE, lease_s=LEASE_S)
        for epoch in range(1, reports + 1):
            report = ReportRequest(
                job_id=job_id,
                batch_size=ask.batch_size,
                trial_number=ask.trial_number,
                run_id=run_id,
                report_number=epoch,
                current_epoch=epoch,
                time=31.4159 * epoch,
                energy=(20_000.0 + 7 * ask.batch_size + number % 13) * epoch,
                metric=0.95 if epoch == reports else 0.5 + epoch / 1000,
                energy_source="nvml",
            )
            runs.report(report, by=COMMAND_LINE, lease_s=LEASE_S)


def table_bytes() -> dict[str, int]:
    """Return the size of each table with its indexes."""
    with db.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            names = connection.execute(text("SELECT name, tbl_name FROM sqlite_master")).all()
            sizes = dict(connection.execute(text("SELECT name, SUM(pgsize) FROM dbstat GROUP BY name")).all())
            tables = [table for _, table in names]
            return {table: sum(sizes.get(name, 0) for name, of in names if of == table) for table in tables}
        for table in inspect(connection).get_table_names():
            connection.execute(text(f"ANALYZE TABLE {table}"))
        columns = "table_name, data_length + index_length"
        query = text(f"SELECT {columns} FROM information_schema.tables WHERE table_schema = DATABASE()")
        return {name: int(size) for name, size in connection.execute(query)}


def measure(url: str, jobs: int, trials: int, reports: int) -> None:
    """Fill a database, and print the size of its rows and how long pruning takes."""
    migrate(url)
    with in_application(url):
        system = db.engine.dialect.name
        began_s = time.monotonic()
        for number in range(jobs):
            train(f"team-{number % 8}/vision/resnet50-{number:05}", trials, reports)
        filled_s = time.monotonic() - began_s
        sizes = table_bytes()
        with db.engine.begin() as connection:
            counts = {
                model.__tablename__: connection.scalar(select(func.count()).select_from(model)) or 0 for model in MODELS
            }
            connection.execute(update(Trial).values(ended_at=LONG_AGO))
        print(f"\n{system}: filled in {filled_s:.0f} s\n\n| table | rows | bytes per row |\n|---|---|---|")
        for table, rows in counts.items():
            print(f"| {table} | {rows:,} | {sizes[table] / rows:,.0f} |")
        began_s = time.monotonic()
        removed = retention.prune_reports(1, COMMAND_LINE, dry_run=False)
        print(f"\nprune-reports removed {removed.reports:,} reports in {time.monotonic() - began_s:.1f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--trials", type=int, default=150, help="trials of each job")
    parser.add_argument("--reports", type=int, default=20, help="reports of each trial")
    arguments = parser.parse_args()
    size = (arguments.jobs, arguments.trials, arguments.reports)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        measure(f"sqlite:///{folder}/bso.db", *size)
        server = folder / "mariadb"
        server.mkdir()
        mariadb = start_mariadb(server)
        stack.callback(mariadb.stop)
        measure(mariadb.empty_database(), *size)


if __name__ == "__main__":
    main()
