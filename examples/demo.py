"""Thirty recurrences of `lightning_digits.py` against a server of their own, and what they taught it.

The server and its data are real and stay: run this again and the job goes on where it was.
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
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
from lightning_digits import JOB, Classifier, Digits, train
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lightning_bso import BsoClient, JobSpec, ZeusBSOTrainFailError
from lightning_bso.energy import make_meter
from lightning_bso.identity import complete_spec
from lightning_bso.wire import JobSummary, TrialRecord

ROOT = Path(__file__).parent.parent
MOST_LAUNCHES = 10
"""A recurrence that fails is launched again, as its user would, but not for ever."""


@contextmanager
def server(database: Path) -> Iterator[str]:
    """A server on a SQLite file, in a process of its own; gives its address."""
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
                raise SystemExit(f"the server did not start; see {log}")
            yield first_line.removeprefix("Listening on ").strip()
        finally:
            process.terminate()
            process.wait()


def recurrence(server_url: str, job: JobSpec, seed: int) -> Iterator[int]:
    """Launch the training until it converges; gives the trial of every launch once it has ended."""
    for launch in range(MOST_LAUNCHES):
        try:
            run = train(server_url, seed * MOST_LAUNCHES + launch, job)
        except ZeusBSOTrainFailError as failure:
            yield failure.trial_number
        else:
            if run.trial_number is None:
                raise SystemExit("the server was lost in mid-training")
            yield run.trial_number
            return
    raise SystemExit(f"a recurrence did not converge in {MOST_LAUNCHES} launches")


def line(number: int, trial: TrialRecord) -> str:
    """A trial in one line, as the server has recorded it."""
    outcome = "converged" if trial.converged else f"[yellow]failed[/]: {trial.outcome}"
    return (
        f"{number:>4} {trial.trial_number:>6}  {trial.type:<10} {trial.batch_size:>5} {trial.current_epoch:>7} "
        f"{trial.time:>8.2f} {trial.energy:>9.2f}  {trial.energy_source:<10}{trial.cost:>9.2f}  {outcome}"
    )


def summary(console: Console, job: JobSummary, trials: list[TrialRecord], launched: int) -> None:
    """What the job knows now, and what this session's launches cost."""
    spec = job.spec
    table = Table(title=f"What job {spec.job_id} has learnt", title_justify="left")
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
    console.print("Means are over converged runs. Energy is estimated from CPU time unless its source says otherwise.")

    console.print(f"Now: {job.message}.")
    for size in job.batch_sizes:
        if size.ruled_out:
            console.print(f"Ruled out: {size.batch_size}, {size.ruled_out}.")

    by_size = {size.batch_size: size for size in job.batch_sizes}
    default, best = by_size[spec.default_batch_size], by_size.get(job.best_batch_size or 0)
    if best is None or best.mean_cost is None:
        console.print("No batch size has converged yet.")
        return
    console.print(f"\nCheapest batch size: [bold]{best.batch_size}[/], {best.mean_cost:.2f} J a run on average.")
    if default.mean_cost is None:
        console.print(f"The default, {default.batch_size}, has not converged.")
    elif best is default:
        console.print("That is the default: so far nothing is known that would save anything on this machine.")
    else:
        saved = default.mean_cost - best.mean_cost
        console.print(
            f"Against the default ({default.batch_size}, {default.mean_cost:.2f} J) it saves {saved:.2f} J, "
            f"{saved / default.mean_cost:.1%} of the cost of a run."
        )
        console.print(how_sure(saved, costs(trials, best.batch_size), costs(trials, default.batch_size)))
    spent = sum(trial.cost for trial in trials[-launched:])
    console.print(
        f"The {launched} launches of this session cost {spent:.2f} J in all, exploration and failures included."
    )


def all_trials(client: BsoClient, job_id: str) -> list[TrialRecord]:
    """Every trial of a job."""
    trials: list[TrialRecord] = []
    while (page := client.list_trials(job_id, offset=len(trials))).trials:
        trials += page.trials
    return trials


def costs(trials: list[TrialRecord], batch_size: int) -> list[float]:
    """Costs of the converged runs of a batch size, in joules."""
    return [trial.cost for trial in trials if trial.batch_size == batch_size and trial.converged]


def how_sure(saved: float, *samples: list[float]) -> str:
    """Whether a difference of two means can be told from chance: it is compared with its standard error."""
    if min(map(len, samples)) < 2:
        return "That rests on a single run of one of the two, so it may be chance."
    error = math.sqrt(sum(statistics.variance(sample) / len(sample) for sample in samples))
    sure = "beyond" if saved > 2 * error else "within"
    return f"The standard error of that difference is {error:.2f} J: it is {sure} what chance alone may bring."


def main() -> None:
    """Run the recurrences and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recurrences", type=int, default=30)
    parser.add_argument("--database", type=Path, default=ROOT / "demo.db", help="SQLite file, made if missing")
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

    with server(arguments.database.absolute()) as url:
        client = BsoClient(url)
        ids = [complete_spec(job, make_meter().machine).job_id or "" for job in jobs]
        known = {job.job_id: job.trials for job in client.list_jobs().jobs}
        before = [known.get(job_id, 0) for job_id in ids]
        for job, job_id, trials in zip(jobs, ids, before, strict=True):
            console.print(
                f"Job {job_id}: {f'goes on after {trials} trials' if trials else 'new'}. Policy {job.policy}."
            )
        console.print(
            "Energy is estimated: CPU time of the training at an assumed power, there being no GPU to measure.\n"
        )
        # The first training in a process is slower than the rest: torch and Lightning load the last of their
        # parts. That is nothing to hold against a batch size, so it happens before the first measurement.
        pl.Trainer(accelerator="cpu", fast_dev_run=3, enable_model_summary=False, enable_progress_bar=False).fit(
            Classifier(), Digits()
        )
        console.print(" run  trial  stage      batch  epochs  time (s) energy (J)  source    cost (J)  outcome")
        launched = [0] * len(jobs)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            for number in progress.track(range(1, arguments.recurrences + 1), description="recurrences"):
                for which, (job, job_id) in enumerate(zip(jobs, ids, strict=True)):
                    for trial_number in recurrence(url, job, before[which] + number):
                        launched[which] += 1
                        (trial,) = client.list_trials(job_id, offset=trial_number - 1, limit=1).trials
                        progress.console.print(line(number, trial) + (f" ({job.policy})" if len(jobs) > 1 else ""))
        trials = [all_trials(client, job_id) for job_id in ids]
        for job_id, of_job, launches in zip(ids, trials, launched, strict=True):
            summary(console, client.describe(job_id), of_job, launches)
        if len(jobs) > 1:
            spent = [sum(t.cost for t in of_job[-n:]) for of_job, n in zip(trials, launched, strict=True)]
            console.print(
                f"\nThe same {arguments.recurrences} recurrences cost "
                + ", ".join(
                    f"{cost:.2f} J in {launches} launches under {job.policy}"
                    for job, cost, launches in zip(jobs, spent, launched, strict=True)
                )
                + f": {jobs[0].policy} {spent[0] / spent[1] - 1:+.1%}."
            )
    shown = arguments.database.absolute()
    console.print(
        "\nTo look around, start the server on the same data:\n"
        f"    {Path(sys.executable)} -m backend serve --database-url sqlite:///{shown}\n"
        f"then open http://127.0.0.1:8000/openapi/swagger, or: curl http://127.0.0.1:8000/jobs/{ids[0]}"
    )


if __name__ == "__main__":
    main()
