"""The console script `lightning-bso`: what a person asks the server for."""

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from lightning_bso.client import BsoClient
from lightning_bso.errors import BSOError
from lightning_bso.wire import RegisteredJobSpec, TrialRecord

DEFAULT_SERVER_URL = "http://127.0.0.1:8000"
SPEC_COLUMNS = (
    *("job_id", "gpu_model", "policy", "batch_sizes", "default_batch_size", "eta_knob", "beta_knob", "max_power"),
    *("target_metric", "higher_is_better_metric", "max_epochs", "num_pruning_rounds", "window_size"),
    *("mab_prior_mean", "mab_prior_precision", "mab_num_explorations", "warm_start_from"),
)
"""What of the job's spec stands on every line, so that a line can be read by itself and simulated."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command of the arguments, by default the process'. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="lightning-bso", description="Ask the batch-size optimizer's server.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    exporting = commands.add_parser("export", help="write a job's trials as CSV")
    exporting.add_argument("job_id", help="the job's id")
    exporting.add_argument(
        "--server-url",
        default=os.environ.get("ZEUS_BSO_SERVER_URL") or DEFAULT_SERVER_URL,
        help="where the server is; else $ZEUS_BSO_SERVER_URL, else %(default)s",
    )
    exporting.add_argument("--output", metavar="FILE", help="the file to write; else standard output")
    exporting.set_defaults(run=_export)
    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen)
    except (BSOError, OSError) as error:
        print(f"lightning-bso: {error}", file=sys.stderr)
        return 1
    return 0


def write_trials(spec: RegisteredJobSpec, trials: Sequence[TrialRecord], output: TextIO) -> None:
    """Write trials as CSV, one line each, with the columns of `TrialRecord` behind those of the spec.

    The batch sizes of the spec are written with spaces between them.
    """
    columns = [*SPEC_COLUMNS, *TrialRecord.model_fields]
    writer = csv.DictWriter(output, columns, lineterminator="\n")
    writer.writeheader()
    job = spec.model_dump(mode="json", include=set(SPEC_COLUMNS))
    job["batch_sizes"] = " ".join(map(str, spec.batch_sizes))
    writer.writerows(job | trial.model_dump(mode="json") for trial in trials)


def _export(chosen: argparse.Namespace) -> None:
    client = BsoClient(chosen.server_url, os.environ.get("ZEUS_BSO_TOKEN"))
    spec = client.describe(chosen.job_id).spec
    trials: list[TrialRecord] = []
    while (page := client.list_trials(chosen.job_id, offset=len(trials))).trials:
        trials += page.trials
    if chosen.output is None:
        write_trials(spec, trials, sys.stdout)
        return
    with Path(chosen.output).open("w", newline="") as output:
        write_trials(spec, trials, output)
    print(f"{len(trials)} trials in {chosen.output}")


if __name__ == "__main__":
    sys.exit(main())
