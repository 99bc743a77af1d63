"""The console script `lightning-bso`: what a person asks the server for, and what is amiss on a machine.

Each command is thin. How jobs look as text is in `display.py`, what is checked in `doctor.py`.
"""

import argparse
import csv
import difflib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO, get_args

from pydantic import TypeAdapter, ValidationError

from lightning_bso.client import BsoClient
from lightning_bso.console.display import job_page, jobs_table
from lightning_bso.console.doctor import Finding, check_machine, check_server
from lightning_bso.errors import BSOError, ServerRefused
from lightning_bso.optimizer import SERVER_URL_VARIABLE, TOKEN_VARIABLE, server_address
from lightning_bso.wire import MAX_PAGE, Id, JobListing, JobSummary, Policy, RegisteredJobSpec, TrialRecord

DEFAULT_SERVER_URL = "http://127.0.0.1:8000"
SPEC_COLUMNS = (
    *("job_id", "gpu_model", "policy", "batch_sizes", "default_batch_size", "eta_knob", "beta_knob", "max_power"),
    *("target_metric", "higher_is_better_metric", "max_epochs", "num_pruning_rounds", "window_size"),
    *("mab_prior_mean", "mab_prior_precision", "mab_num_explorations", "warm_start_from"),
)
"""What of the job's spec stands on every line, so that a line can be read by itself and simulated."""
MOST_NAMED = 5
"""How many jobs an error names that may have been meant."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command of the arguments, by default the process'. Returns the exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        status: int = chosen.run(chosen)
    except (BSOError, OSError, ValueError) as error:
        print(f"lightning-bso: {error}", file=sys.stderr)
        return 1
    return status


def write_trials(spec: RegisteredJobSpec, trials: Iterable[TrialRecord], output: TextIO) -> None:
    """Write trials as CSV, one line each, with the columns of `TrialRecord` behind those of the spec.

    The batch sizes of the spec are written with spaces between them.
    """
    columns = [*SPEC_COLUMNS, *TrialRecord.model_fields]
    writer = csv.DictWriter(output, columns, lineterminator="\n")
    writer.writeheader()
    job = spec.model_dump(mode="json", include=set(SPEC_COLUMNS))
    job["batch_sizes"] = " ".join(map(str, spec.batch_sizes))
    writer.writerows(job | trial.model_dump(mode="json") for trial in trials)


def _parser() -> argparse.ArgumentParser:
    server = argparse.ArgumentParser(add_help=False)
    server.add_argument(
        "--server-url",
        metavar="URL",
        default=server_address(None) or DEFAULT_SERVER_URL,
        help=f"where the server is; else ${SERVER_URL_VARIABLE}, else {DEFAULT_SERVER_URL}",
    )
    server.add_argument(
        "--token",
        type=_token,
        default=os.environ.get(TOKEN_VARIABLE) or None,
        help=f"access token; else ${TOKEN_VARIABLE}, where other users of the machine do not see it",
    )
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print JSON, with all that is known")
    job = argparse.ArgumentParser(add_help=False)
    job.add_argument("job", metavar="JOB", help="the job's id, or the beginning of one that no other job's has")

    parser = argparse.ArgumentParser(prog="lightning-bso", description="Ask the batch-size optimizer's server.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pinging = commands.add_parser("ping", parents=[server], help="see whether trainings can use the server")
    pinging.set_defaults(run=_ping)
    listing = commands.add_parser("jobs", parents=[server, as_json], help="list the jobs, newest first")
    listing.add_argument("--prefix", type=_id, default="", help="only jobs whose ids begin like this")
    listing.add_argument(
        "--contains", type=_id, default="", metavar="TEXT", help="only jobs whose ids hold this anywhere"
    )
    listing.add_argument("--policy", choices=get_args(Policy), help="only jobs with this policy")
    listing.add_argument("--gpu", type=_id, default="", metavar="MODEL", help="only jobs on this model of GPU")
    listing.add_argument("--paused", action="store_true", help="only jobs that are paused")
    listing.add_argument("--limit", type=_number, metavar="N", help="at most so many; else all")
    listing.set_defaults(run=_jobs)
    showing = commands.add_parser("show", parents=[job, server, as_json], help="show what is known of a job")
    showing.add_argument("--trials", type=_number, metavar="N", default=10, help="the latest so many; else %(default)s")
    showing.set_defaults(run=_show)
    exporting = commands.add_parser("export", parents=[job, server], help="write a job's trials as CSV")
    exporting.add_argument("--output", metavar="FILE", help="the file to write; else standard output")
    exporting.set_defaults(run=_export)
    examining = commands.add_parser("doctor", parents=[server], help="find what would keep a training from working")
    examining.set_defaults(run=_doctor)
    return parser


def _ping(chosen: argparse.Namespace) -> int:
    return _say(list(check_server(chosen.server_url, chosen.token)))


def _doctor(chosen: argparse.Namespace) -> int:
    return _say([*check_machine(), *check_server(chosen.server_url, chosen.token)])


def _say(findings: Sequence[Finding]) -> int:
    """Print findings; the exit status that they amount to."""
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"{finding.level:7}  {finding.subject:{width}}  {finding.text}")
    return int(any(finding.level == "problem" for finding in findings))


def _jobs(chosen: argparse.Namespace) -> int:
    filters: dict[str, Any] = {
        "contains": chosen.contains or None,
        "policy": chosen.policy,
        "gpu_model": chosen.gpu or None,
        "paused": chosen.paused or None,
    }
    listed = _listed(BsoClient(chosen.server_url, chosen.token), chosen.prefix, chosen.limit, **filters)
    jobs = list(islice(listed, chosen.limit))
    if chosen.json:
        print(json.dumps([job.model_dump(mode="json") for job in jobs], indent=2))
    elif jobs:
        print(jobs_table(jobs))
    elif any(filters.values()):
        print("There is no such job.")
    else:
        print(f"No job's id begins with {chosen.prefix!r}." if chosen.prefix else "There are no jobs yet.")
    return 0


def _show(chosen: argparse.Namespace) -> int:
    client = BsoClient(chosen.server_url, chosen.token)
    job = _find(client, chosen.job)
    job_id = job.spec.job_id or ""
    belief, savings = client.tell_belief(job_id), client.tell_savings(job_id)
    total = client.list_trials(job_id, limit=1).total
    latest = list(_trials(client, job_id, max(0, total - chosen.trials)))
    if chosen.json:
        told = {"job": job, "belief": belief, "savings": savings}
        dumped: dict[str, Any] = {name: one.model_dump(mode="json") for name, one in told.items()}
        dumped["trials"] = [trial.model_dump(mode="json") for trial in latest]
        print(json.dumps(dumped, indent=2))
    else:
        print(job_page(job, belief, savings, latest))
    return 0


def _export(chosen: argparse.Namespace) -> int:
    client = BsoClient(chosen.server_url, chosen.token)
    spec = _find(client, chosen.job).spec
    trials = list(_trials(client, spec.job_id or ""))
    if chosen.output is None:
        write_trials(spec, trials, sys.stdout)
        return 0
    with Path(chosen.output).open("w", newline="") as output:
        write_trials(spec, trials, output)
    print(f"{len(trials)} trials in {chosen.output}")
    return 0


def _find(client: BsoClient, name: str) -> JobSummary:
    """The job of this id, or else the one whose id begins with it.

    Raises:
        BSOError: there is none, or several; the text names those that may have been meant.
    """
    try:
        return client.describe(name)
    except ServerRefused as refusal:
        if refusal.status != 404:
            raise
    meant = [job.job_id for job in _listed(client, name)]
    if len(meant) == 1:
        return client.describe(meant[0])
    if meant:
        named = ", ".join(meant[:MOST_NAMED]) + (", …" if len(meant) > MOST_NAMED else "")
        raise BSOError(f"{len(meant)} jobs begin with {name!r}; give more of one: {named}")
    close = difflib.get_close_matches(name, [job.job_id for job in client.list_jobs().jobs], MOST_NAMED)
    hint = f"did you mean {' or '.join(close)}?" if close else "`lightning-bso jobs` lists them"
    raise BSOError(f"no job is called {name!r}; {hint}")


def _listed(
    client: BsoClient, prefix: str, limit: int | None = None, *, contains: str | None = None, **filters: Any
) -> Iterator[JobListing]:
    """The jobs whose ids begin with a prefix and that the filters of `list_jobs` let through, newest first.

    The server knows no prefixes, but leaves out the jobs whose ids do not hold it. If there is none, no more than
    `limit` jobs are asked for at a time.
    """
    step, received = MAX_PAGE if prefix else min(limit or MAX_PAGE, MAX_PAGE), 0
    while (page := client.list_jobs(received, step, contains=contains or prefix or None, **filters)).jobs:
        received += len(page.jobs)
        yield from (job for job in page.jobs if job.job_id.startswith(prefix))


def _trials(client: BsoClient, job_id: str, offset: int = 0) -> Iterator[TrialRecord]:
    """All trials of a job from one on, by rising number."""
    while (page := client.list_trials(job_id, offset)).trials:
        offset += len(page.trials)
        yield from page.trials


def _token(text: str) -> str:
    # What cannot be sent in a header would come back in an error, with the token in it.
    if not (text.isascii() and text.isprintable()):
        raise argparse.ArgumentTypeError("it holds characters that no token has")
    return text


def _id(text: str) -> str:
    try:
        return text and TypeAdapter(Id).validate_python(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(f"no job has that: {error.errors()[0]['msg']}") from None


def _number(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return number


if __name__ == "__main__":
    sys.exit(main())
