"""The scripts of examples/libraries: five recurrences of each, with the batch size that the server gives.

All libraries share one environment, because installing takes longer than the trainings. The recipes stay apart: each
runs in processes of its own, which import one library, and the package itself requires none of them.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lightning_bso import BsoClient
from tests.libraries.conftest import Environment
from tests.servers import ROOT, Server

SCRIPTS = ROOT / "examples" / "libraries"
RECURRENCES = 5


@pytest.fixture(scope="module")
def recipes_environment(new_environment: Callable[[], Environment]) -> Environment:
    """An environment with the callback's extra and the libraries of the recipes."""
    environment = new_environment()
    environment.install(
        "lightning", "pytorch-forecasting", "darts", "scvi-tools", "torch-geometric", "transformers[torch]"
    )
    return environment


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(f"sqlite:///{tmp_path / 'bso.db'}", tmp_path) as running:
        yield running


def recurrence(environment: Environment, server: Server, script: str) -> tuple[int, Counter[int]]:
    """Launch a script once. Returns its batch size, and how many batches of each size its training steps saw."""
    name, *options = script.split()
    run = environment.launch(SCRIPTS / name, "--server-url", server.url, *options)
    failed = run.returncode == 1 and "ZeusBSOTrainFailError" in run.stderr  # not converged: a result, too
    assert run.returncode == 0 or failed, run.stderr
    printed = re.search(r"^Batch size (\d+), batches: ([^.]+)\.", run.stdout, re.MULTILINE)
    assert printed is not None, run.stdout + run.stderr
    seen = {int(size): int(count) for count, size in re.findall(r"(\d+) of (\d+)", printed[2])}
    return int(printed[1]), Counter(seen)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "script",
    [
        "pytorch_forecasting_nbeats.py",
        "darts_tide.py",
        "scvi_tools_scvi.py",
        "pytorch_geometric_graphs.py --data dataset",
        "pytorch_geometric_graphs.py --data loader",
        "hugging_face_bert.py",
    ],
)
def test_five_recurrences_train_with_the_batch_sizes_that_the_server_gives(
    script: str, recipes_environment: Environment, server: Server
) -> None:
    runs = [recurrence(recipes_environment, server, script) for _ in range(RECURRENCES)]
    client = BsoClient(server.url)
    (job,) = client.list_jobs().jobs
    trials = client.list_trials(job.job_id).trials
    assert [trial.batch_size for trial in trials] == [given for given, _ in runs]
    assert len({given for given, _ in runs}) > 1
    assert trials[0].converged
    for trial, (given, seen) in zip(trials, runs, strict=True):
        assert trial.converged is not None
        assert max(seen) == given
        smaller = seen.total() - seen[given]
        assert smaller <= trial.current_epoch, "only the last batch of an epoch may be smaller"
