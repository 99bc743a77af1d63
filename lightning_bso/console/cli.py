"""The console script `lightning-bso`: shows a server's jobs, checks a training machine, and starts the server.

Each command is short. `display` formats jobs as text, and `doctor` makes the checks. The calls are in
`lightning_bso.client`. The server has its own command line, which `server` hands over to.
"""

import argparse
import csv
import difflib
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from importlib import import_module, metadata
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

from pydantic import TypeAdapter, ValidationError

from lightning_bso import variables
from lightning_bso.client import BsoClient
from lightning_bso.console.display import job_page, jobs_table
from lightning_bso.console.doctor import Finding, check_machine, check_server, check_training
from lightning_bso.errors import BSOError, ServerRefused
from lightning_bso.optimizer import server_address
from lightning_bso.quantities import count
from lightning_bso.transport import check_token
from lightning_bso.wire import MAX_PAGE, Id, JobListing, JobSummary, Policy, RegisteredJobSpec, TrialRecord

DEFAULT_SERVER_URL = "http://127.0.0.1:8000"
SPEC_COLUMNS = (
    *("job_id", "gpu_model", "policy", "batch_sizes", "default_batch_size", "eta_knob", "beta_knob", "max_power"),
    *("target_metric", "higher_is_better_metric", "max_epochs", "num_pruning_rounds", "window_size"),
    *("mab_prior_mean", "mab_prior_precision", "mab_num_explorations", "warm_start_from"),
)
"""Columns of the job's spec. Every line of the CSV repeats them, so the simulator needs no other file."""
SERVER_COMMANDS = "lightning_bso_server.cli"
"""The server's command line in the wheel. In the repository it is `backend.cli`."""
MAX_SUGGESTIONS = 5
"""Number of similar job ids in an error message."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status. The default for `arguments` is the process's command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["serve"]:
        return _run_server(arguments)
    if arguments[:1] == ["server"]:
        return _run_server(arguments[1:])
    try:
        options = _parser().parse_args(arguments)
        status: int = options.run(options)
        sys.stdout.flush()  # so that a reader that has left shows here
    except BrokenPipeError:
        # As `head` does. Python would complain again when it flushes at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (BSOError, OSError, ValueError) as error:
        print(f"lightning-bso: {error}", file=sys.stderr)
        return 1
    return status


def write_trials(spec: RegisteredJobSpec, trials: Iterable[TrialRecord], output: TextIO) -> None:
    """Write trials as CSV, one line per trial. The columns are those of the spec, then those of `TrialRecord`.

    Spaces separate the batch sizes of the spec.
    """
    columns = [*SPEC_COLUMNS, *TrialRecord.model_fields]
    writer = csv.DictWriter(output, columns, lineterminator="\n")
    writer.writeheader()
    job = spec.model_dump(mode="json", include=set(SPEC_COLUMNS))
    job["batch_sizes"] = " ".join(map(str, spec.batch_sizes))
    writer.writerows(job | trial.model_dump(mode="json") for trial in trials)


def write_trials_as_json(spec: RegisteredJobSpec, trials: Iterable[TrialRecord], output: TextIO) -> None:
    """Write trials as JSON, with all fields of the spec and of each trial."""
    content = {"spec": spec.model_dump(mode="json"), "trials": [trial.model_dump(mode="json") for trial in trials]}
    output.write(json.dumps(content, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    server = argparse.ArgumentParser(add_help=False)
    server.add_argument(
        "--server-url",
        metavar="URL",
        default=server_address(None) or DEFAULT_SERVER_URL,
        help=f"address of the server; default: ${variables.SERVER_URL}, then {DEFAULT_SERVER_URL}",
    )
    server.add_argument(
        "--token",
        type=_token,
        default=os.environ.get(variables.TOKEN) or None,
        help=f"access token; default: ${variables.TOKEN}, which other users of this machine cannot see",
    )
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print JSON with all fields")
    job = argparse.ArgumentParser(add_help=False)
    job.add_argument("job", metavar="JOB", help="id of the job, or a beginning of it that no other job's id has")

    parser = argparse.ArgumentParser(
        prog="lightning-bso", description="Query the batch-size optimizer's server, and check this machine."
    )
    parser.add_argument("--version", action="version", version=f"lightning-bso {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    # `main` hands these over before it parses, so that the server's own options are known to the server alone.
    commands.add_parser("serve", help="start a server (needs lightning-bso[server])")
    commands.add_parser("server", help="manage the server's database, tokens and users (needs lightning-bso[server])")
    ping = commands.add_parser("ping", parents=[server, as_json], help="check whether trainings can use the server")
    ping.set_defaults(run=_ping)
    jobs = commands.add_parser("jobs", parents=[server, as_json], help="list the jobs, newest first")
    jobs.add_argument("--prefix", type=_id, default="", help="only jobs whose id starts with this text")
    jobs.add_argument("--contains", type=_id, default="", metavar="TEXT", help="only jobs whose id contains this text")
    jobs.add_argument("--policy", choices=get_args(Policy), help="only jobs with this policy")
    jobs.add_argument("--gpu", type=_id, default="", metavar="MODEL", help="only jobs on this GPU model")
    jobs.add_argument("--paused", action="store_true", help="only paused jobs")
    jobs.add_argument("--limit", type=_positive_int, metavar="N", help="maximum number of jobs; default: all")
    jobs.set_defaults(run=_jobs)
    show = commands.add_parser(
        "show", parents=[job, server, as_json], help="show a job, its batch sizes and its latest trials"
    )
    show.add_argument(
        "--trials", type=_positive_int, metavar="N", default=10, help="number of latest trials; default: %(default)s"
    )
    show.set_defaults(run=_show)
    export = commands.add_parser(
        "export",
        parents=[server, as_json],
        help="write a job's trials as CSV, or with --json as JSON, or all trials and reports of all jobs",
    )
    export.add_argument("job", nargs="?", metavar="JOB", help="id of the job, or a beginning that no other id has")
    export.add_argument("--all", action="store_true", help="all trials and reports of all jobs")
    export.add_argument("--format", choices=("csv", "parquet"), help="write all trials and reports in this format")
    export.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="file to write; default: standard output. With --all or --format: folder; default: the current one",
    )
    export.set_defaults(run=_export)
    doctor = commands.add_parser(
        "doctor", parents=[server, as_json], help="check this machine and the server for problems"
    )
    doctor.add_argument(
        "--training",
        nargs=argparse.REMAINDER,
        metavar="SCRIPT",
        help="a training script with its arguments, run up to its fit: say what ZEUS_BSO_AUTO=1 would do in it",
    )
    doctor.set_defaults(run=_doctor)
    return parser


def _version() -> str:
    try:
        return metadata.version("lightning-bso")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _run_server(arguments: Sequence[str]) -> int:
    """Hand over to the server's command line, which ends the process."""
    try:
        server = import_module(SERVER_COMMANDS)
    except ModuleNotFoundError as error:
        print(f"lightning-bso: the server cannot start: {error}; pip install 'lightning-bso[server]'", file=sys.stderr)
        return 1
    server.main(list(arguments), prog_name="lightning-bso server")
    return 0


def _ping(options: argparse.Namespace) -> int:
    return _print_findings(list(check_server(options.server_url, options.token)), as_json=options.json)


def _doctor(options: argparse.Namespace) -> int:
    training = [check_training(options.training, options.server_url, options.token)] if options.training else []
    findings = [*check_machine(), *training, *check_server(options.server_url, options.token)]
    return _print_findings(findings, as_json=options.json)


def _print_findings(findings: Sequence[Finding], *, as_json: bool) -> int:
    """Print the findings and return the exit status: 1 if there is a problem, else 0."""
    status = int(any(finding.level == "problem" for finding in findings))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
        return status
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"{finding.level:7}  {finding.subject:{width}}  {finding.text}")
    return status


def _jobs(options: argparse.Namespace) -> int:
    filters: dict[str, Any] = {
        "contains": options.contains or None,
        "policy": options.policy,
        "gpu_model": options.gpu or None,
        "paused": options.paused or None,
    }
    client = BsoClient(options.server_url, options.token)
    jobs = list(islice(_iterate_jobs(client, options.prefix, options.limit, **filters), options.limit))
    if options.json:
        print(json.dumps([job.model_dump(mode="json") for job in jobs], indent=2))
    elif jobs:
        print(jobs_table(jobs, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
    elif any(filters.values()):
        print("No job matches these filters.")
    else:
        print(f"No job id starts with {options.prefix!r}." if options.prefix else "There are no jobs yet.")
    return 0


def _show(options: argparse.Namespace) -> int:
    client = BsoClient(options.server_url, options.token)
    job = _find_job(client, options.job)
    job_id = job.spec.job_id or ""
    belief, savings = client.get_belief(job_id), client.get_savings(job_id)
    total = client.list_trials(job_id, limit=1).total
    latest = list(_iterate_trials(client, job_id, max(0, total - options.trials)))
    if options.json:
        content = {
            "job": job.model_dump(mode="json"),
            "belief": belief.model_dump(mode="json"),
            "savings": savings.model_dump(mode="json"),
            "trials": [trial.model_dump(mode="json") for trial in latest],
        }
        print(json.dumps(content, indent=2))
    else:
        print(job_page(job, belief, savings, latest, cuts=sys.stdout.isatty()))
    return 0


def _export(options: argparse.Namespace) -> int:
    client = BsoClient(options.server_url, options.token)
    if options.all == (options.job is not None):
        raise ValueError("export needs a JOB or --all, and not both")
    if options.json and (options.all or options.format):
        raise ValueError("--json writes the trials of one job; leave out --all and --format")
    if options.all or options.format:
        jobs = [] if options.all else [_find_job(client, options.job).spec.job_id or ""]
        return _export_tables(client, jobs, options.format or "csv", Path(options.output or "."))
    spec = _find_job(client, options.job).spec
    trials = list(_iterate_trials(client, spec.job_id or ""))
    write = write_trials_as_json if options.json else write_trials
    if options.output is None:
        write(spec, trials, sys.stdout)
        return 0
    with Path(options.output).open("w", newline="") as output:
        write(spec, trials, output)
    print(f"Wrote {count(len(trials), 'trial')} to {options.output}")
    return 0


def _export_tables(client: BsoClient, jobs: Sequence[str], kind: Literal["csv", "parquet"], folder: Path) -> int:
    """Write all trials and all reports into files in a folder. A file is there only when it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    tables: tuple[Literal["trials", "reports"], ...] = ("trials", "reports")
    for table in tables:
        file = folder / f"{table}.{kind}"
        part = file.with_name(f"{file.name}.part")
        try:
            with client.export(table, kind, jobs) as pieces, part.open("wb") as output:
                output.writelines(pieces)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
        print(f"Wrote {file}")
    return 0


def _find_job(client: BsoClient, name: str) -> JobSummary:
    """Return the job with this id, else the job whose id starts with this text.

    Raises:
        BSOError: there is no such job, or there are several. The message names similar ids.
    """
    try:
        return client.describe(name)
    except ServerRefused as refusal:
        if refusal.status != 404:
            raise
    matches = [job.job_id for job in _iterate_jobs(client, name)]
    if len(matches) == 1:
        return client.describe(matches[0])
    if matches:
        suggestions = ", ".join(matches[:MAX_SUGGESTIONS]) + (", …" if len(matches) > MAX_SUGGESTIONS else "")
        raise BSOError(f"{len(matches)} job ids start with {name!r}; give a longer part of the id: {suggestions}")
    similar = difflib.get_close_matches(name, [job.job_id for job in client.list_jobs().jobs], MAX_SUGGESTIONS)
    hint = f"did you mean {' or '.join(similar)}?" if similar else "`lightning-bso jobs` lists all jobs"
    raise BSOError(f"no job has the id {name!r}; {hint}")


def _iterate_jobs(
    client: BsoClient, prefix: str, limit: int | None = None, *, contains: str | None = None, **filters: Any
) -> Iterator[JobListing]:
    """Iterate over the jobs whose ids start with a prefix and that match the filters of `list_jobs`, newest first.

    The server has no filter for a prefix, so it filters by `contains`. Without a prefix, a request asks for at most
    `limit` jobs.
    """
    page_size = MAX_PAGE if prefix else min(limit or MAX_PAGE, MAX_PAGE)
    offset = 0
    while (page := client.list_jobs(offset, page_size, contains=contains or prefix or None, **filters)).jobs:
        offset += len(page.jobs)
        yield from (job for job in page.jobs if job.job_id.startswith(prefix))


def _iterate_trials(client: BsoClient, job_id: str, offset: int = 0) -> Iterator[TrialRecord]:
    """Iterate over a job's trials, starting at an offset, by rising number."""
    while (page := client.list_trials(job_id, offset)).trials:
        offset += len(page.trials)
        yield from page.trials


def _token(text: str) -> str:
    try:
        check_token(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _id(text: str) -> str:
    try:
        return text and TypeAdapter(Id).validate_python(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(f"not a valid value: {error.errors()[0]['msg']}") from None


def _positive_int(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
