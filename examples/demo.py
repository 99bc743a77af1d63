"""Run thirty recurrences of `lightning_digits.py` against a demo server, and print what the server learned.

The server is real, and its database stays: run this again, and the job continues. With `--serve`, the server goes on
until Ctrl-C.
"""

import argparse
import logging
import math
import os
import statistics
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlencode

import lightning.pytorch as pl
from lightning_digits import JOB, Classifier, Digits, train
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lightning_bso import BsoClient, JobSpec, ZeusBSOTrainFailError
from lightning_bso.energy import make_meter
from lightning_bso.identity import complete_spec
from lightning_bso.quantities import count
from lightning_bso.wire import JobSummary, TrialRecord

ROOT = Path(__file__).parent.parent
MAX_LAUNCHES = 10
"""Limit of launches per recurrence. A user would also launch a failed training again."""
BARS = "▁▂▃▄▅▆▇█"


@contextmanager
def server(database: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Run a server on a SQLite file in its own process, and yield its address and the process."""
    log = database.with_suffix(".log")
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "backend", "serve", "--port", "0", "--database-url", f"sqlite:///{database}"],
            cwd=ROOT,
            env=os.environ | {"ZEUS_BSO_LOG_LEVEL": "WARNING"},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            first_line = process.stdout.readline() if process.stdout else ""
            if not first_line.startswith("Listening on "):
                raise SystemExit(f"The server did not start. See {log}")
            yield first_line.removeprefix("Listening on ").strip(), process
        finally:
            process.terminate()
            process.wait()


def recurrence(server_url: str, job: JobSpec, seed: int) -> Iterator[int]:
    """Launch the training until it converges. Yield the trial number of each launch after its end."""
    for launch in range(MAX_LAUNCHES):
        try:
            run = train(server_url, seed * MAX_LAUNCHES + launch, job)
        except ZeusBSOTrainFailError as failure:
            yield failure.trial_number
        else:
            if run.trial_number is None:
                raise SystemExit("The server was lost during a training. Run the demo again to continue")
            yield run.trial_number
            return
    raise SystemExit(f"A recurrence did not converge in {MAX_LAUNCHES} launches")


def line(number: int, trial: TrialRecord) -> str:
    """Format a trial of the server as one line."""
    outcome = "converged" if trial.converged else f"[yellow]failed[/]: {trial.outcome}"
    return (
        f"{number:>4} {trial.trial_number:>6}  {trial.type:<10} {trial.batch_size:>5} {trial.current_epoch:>7} "
        f"{trial.time:>8.2f} {trial.energy:>9.2f}  {trial.energy_source:<10}{trial.cost:>9.2f}  {outcome}"
    )


def sparkline(values: list[float]) -> str:
    """Draw numbers as one line of bars: the lowest bar is the smallest number, the highest the largest."""
    low, high = min(values), max(values)
    steps = (len(BARS) - 1) / (high - low) if high > low else 0
    return "".join(BARS[round((value - low) * steps)] for value in values)


def summary(console: Console, job: JobSummary, trials: list[TrialRecord], spent: list[float], launched: int) -> None:
    """Print the results of a job, and what the recurrences of this session and their launches have cost."""
    spec = job.spec
    console.print(f"\nCost per recurrence, {min(spent):.2f} to {max(spent):.2f} J:  {sparkline(spent)}\n")
    table = Table(title=f"Results of job {spec.job_id}", title_justify="left")
    for column in ("batch size", "runs", "converged", "epochs", "time (s)", "energy (J)", "cost (J)"):
        table.add_column(column, justify="right")
    for size in job.batch_sizes:
        means = (size.mean_epochs, size.mean_time, size.mean_energy, size.mean_cost)
        table.add_row(
            f"{size.batch_size}{' (default)' if size.batch_size == spec.default_batch_size else ''}",
            str(size.runs),
            str(size.converged),
            *("–" if mean is None else f"{mean:.2f}" for mean in means),
        )
    console.print(table)
    console.print("Means are over converged runs. Energy is an estimate from CPU time, unless its source is another.")

    console.print(f"Status: {job.message}.")
    for size in job.batch_sizes:
        if size.ruled_out:
            console.print(f"Ruled out: {size.batch_size}, {size.ruled_out}.")

    by_size = {size.batch_size: size for size in job.batch_sizes}
    default, best = by_size[spec.default_batch_size], by_size.get(job.best_batch_size or 0)
    if best is None or best.mean_cost is None:
        console.print("No batch size has converged yet.")
        return
    console.print(f"\nCheapest batch size: [bold]{best.batch_size}[/], {best.mean_cost:.2f} J per run on average.")
    if default.mean_cost is None:
        console.print(f"The default, {default.batch_size}, has not converged.")
    elif best is default:
        console.print("That is the default: so far no other batch size is cheaper on this machine.")
    else:
        saved = default.mean_cost - best.mean_cost
        console.print(
            f"Compared with the default ({default.batch_size}, {default.mean_cost:.2f} J) it saves {saved:.2f} J, "
            f"{saved / default.mean_cost:.1%} of the cost of a run."
        )
        console.print(describe_error(saved, costs(trials, best.batch_size), costs(trials, default.batch_size)))
    console.print(
        f"The {count(launched, 'launch', 'launches')} of this session cost {sum(spent):.2f} J in total, "
        "with exploration and failures."
    )


def all_trials(client: BsoClient, job_id: str) -> list[TrialRecord]:
    """Return all trials of a job."""
    trials: list[TrialRecord] = []
    while (page := client.list_trials(job_id, offset=len(trials))).trials:
        trials += page.trials
    return trials


def costs(trials: list[TrialRecord], batch_size: int) -> list[float]:
    """Return the costs of the converged runs of a batch size, in joules."""
    return [trial.cost for trial in trials if trial.batch_size == batch_size and trial.converged]


def describe_error(saved: float, *samples: list[float]) -> str:
    """Compare a difference of two means with its standard error, to say whether it may be due to chance."""
    if min(map(len, samples)) < 2:
        return "At least one of the two has only a single run, so the difference may be due to chance."
    error = math.sqrt(sum(statistics.variance(sample) / len(sample) for sample in samples))
    conclusion = "is unlikely to be due to chance" if saved > 2 * error else "may be due to chance"
    return f"The standard error of that difference is {error:.2f} J: the difference {conclusion}."


def main() -> None:
    """Run the recurrences, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recurrences", type=int, default=30)
    parser.add_argument("--database", type=Path, default=ROOT / "demo.db", help="SQLite file, created if missing")
    parser.add_argument("--serve", action="store_true", help="go on serving the page until Ctrl-C")
    parser.add_argument(
        "--beside", choices=["zeus"], help="train every recurrence a second time under this policy, and compare"
    )
    arguments = parser.parse_args()
    jobs = [JOB] if arguments.beside is None else [JOB, JOB.model_copy(update={"policy": arguments.beside})]
    for noisy in ("lightning.pytorch", "lightning.fabric", "lightning_bso"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    console = Console(soft_wrap=True, highlight=False)
    console.width = max(console.width, 100)

    with server(arguments.database.absolute()) as (url, process):
        client = BsoClient(url)
        ids = [complete_spec(job, make_meter().machine).job_id or "" for job in jobs]
        trial_counts = {job.job_id: job.trials for job in client.list_jobs().jobs}
        before = [trial_counts.get(job_id, 0) for job_id in ids]
        for job, job_id, trials in zip(jobs, ids, before, strict=True):
            state = f"continues after {count(trials, 'trial')}" if trials else "new"
            console.print(f"Job {job_id}: {state}. Policy {job.policy}.")
        console.print(
            "Energy is an estimate: CPU time of the training times an assumed power, because no GPU is measured.\n"
        )
        # The first training in a process is slower, because torch and Lightning load modules on first use. A short
        # training before the first measurement keeps that out of the costs.
        pl.Trainer(accelerator="cpu", fast_dev_run=3, enable_model_summary=False, enable_progress_bar=False).fit(
            Classifier(), Digits()
        )
        console.print(" run  trial  stage      batch  epochs  time (s) energy (J)  source    cost (J)  outcome")
        launched = [0] * len(jobs)
        spent: list[list[float]] = [[] for _ in jobs]
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            for number in progress.track(range(1, arguments.recurrences + 1), description="recurrences"):
                for index, (job, job_id) in enumerate(zip(jobs, ids, strict=True)):
                    spent[index].append(0)
                    for trial_number in recurrence(url, job, before[index] + number):
                        (trial,) = client.list_trials(job_id, offset=trial_number - 1, limit=1).trials
                        launched[index] += 1
                        spent[index][-1] += trial.cost
                        progress.console.print(line(number, trial) + (f" ({job.policy})" if len(jobs) > 1 else ""))
        for job_id, costs_of_job, launches in zip(ids, spent, launched, strict=True):
            summary(console, client.describe(job_id), all_trials(client, job_id), costs_of_job, launches)
        if len(jobs) > 1:
            totals = [sum(costs_of_job) for costs_of_job in spent]
            console.print(
                f"\nThe same {arguments.recurrences} recurrences cost "
                + ", ".join(
                    f"{cost:.2f} J in {count(launches, 'launch', 'launches')} under {job.policy}"
                    for job, cost, launches in zip(jobs, totals, launched, strict=True)
                )
                + f": {jobs[0].policy} {totals[0] / totals[1] - 1:+.1%}."
            )
        page = f"/admin/job/?{urlencode({'job': ids[0]})}"
        if arguments.serve:
            console.print(f"\nThe server goes on until Ctrl-C. The job's page: {url}{page}")
            with suppress(KeyboardInterrupt):
                process.wait()
            return
    console.print(
        "\nTo look around, start the server on the same database (`make demo SERVE=1` goes on serving by itself):\n"
        f"    {Path(sys.executable)} -m backend serve --database-url sqlite:///{arguments.database.absolute()}\n"
        f"then open the job's page: http://127.0.0.1:8000{page}"
    )


if __name__ == "__main__":
    main()
