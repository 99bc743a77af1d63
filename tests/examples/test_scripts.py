"""The example trainings, launched with the commands in their docstrings."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_bso import BsoClient
from lightning_bso.wire import TrialRecord
from tests import warm
from tests.client.scripted import Request, ScriptedServer, handed_on
from tests.databases import free_port
from tests.servers import Server, environment
from tests.warm import EXAMPLES

TIMEOUT_S = 120


def launch(
    script: str, folder: Path, *arguments: str, launcher: tuple[str, ...] = ()
) -> "subprocess.CompletedProcess[str]":
    """Run an example to its end, in another folder than its own and in a new Python process."""
    return subprocess.run(
        [sys.executable, *launcher, str(EXAMPLES / script), *arguments],
        cwd=folder,
        env=environment(OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@contextmanager
def running(script: str, folder: Path, *arguments: str) -> Iterator[tuple[warm.Process, Path]]:
    """Start an example warm. Yields the process and the file of its standard error, and waits for the end."""
    log = folder / "stderr.txt"
    with log.open("w") as stderr, (folder / "stdout.txt").open("w") as stdout:
        command, variables = [str(EXAMPLES / script), *arguments], environment(OMP_NUM_THREADS="1")
        process = warm.start(command, cwd=folder, env=variables, stdout=stdout, stderr=stderr)
    try:
        yield process, log
        process.wait(TIMEOUT_S)
    finally:
        process.send_signal(signal.SIGKILL)


def only_trial(client: BsoClient) -> TrialRecord:
    """Return the only trial of the only job on a server."""
    (job,) = client.list_jobs().jobs
    (trial,) = client.list_trials(job.job_id).trials
    return trial


def test_the_lightning_training_converges(server: Server, client: BsoClient, tmp_path: Path) -> None:
    with running("lightning_digits.py", tmp_path, "--server-url", server.url, "--seed", "0") as (run, stderr):
        pass
    assert run.returncode == 0, stderr.read_text()
    printed = (tmp_path / "stdout.txt").read_text()
    assert printed.startswith("Batch size 128: ")
    assert "reached the target" in printed
    recorded = only_trial(client)
    assert (recorded.batch_size, recorded.converged, recorded.energy_source) == (128, True, "estimated")
    assert recorded.energy > 0


def test_the_lightning_training_in_two_processes_converges_as_one(
    server: Server, client: BsoClient, tmp_path: Path
) -> None:
    run = launch("lightning_digits.py", tmp_path, "--server-url", server.url, "--devices", "2")
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("reached the target") == 2
    recorded = only_trial(client)
    assert (recorded.converged, recorded.energy_source) == (True, "estimated")


def test_the_lightning_training_goes_on_in_its_trial_after_a_sigterm(
    server: Server, client: BsoClient, scripted: ScriptedServer, tmp_path: Path
) -> None:
    def preempt(request: Request) -> None:
        if request.path == "/report" and request.body["current_epoch"] == 3:
            preempted.send_signal(signal.SIGTERM)

    scripted.script = handed_on(server.url, preempt)
    checkpoints = ("--checkpoints", str(tmp_path / "run"))
    with running("lightning_digits.py", tmp_path, "--server-url", scripted.url, *checkpoints) as (preempted, stderr):
        pass
    interrupted = only_trial(client)
    assert (interrupted.status, interrupted.current_epoch) == ("Dispatched", 3), stderr.read_text()

    with running("lightning_digits.py", tmp_path, "--server-url", server.url, *checkpoints) as (resumed, stderr):
        pass
    assert resumed.returncode == 0, stderr.read_text()
    ended = only_trial(client)
    assert ended.converged
    assert ended.energy > interrupted.energy


def test_the_training_without_lightning_converges(server: Server, client: BsoClient, tmp_path: Path) -> None:
    run = launch("plain_pytorch.py", tmp_path, "--server-url", server.url)
    assert run.returncode == 0, run.stderr
    assert "reached the target" in run.stdout
    recorded = only_trial(client)
    assert (recorded.batch_size, recorded.converged) == (128, True)


def test_the_training_in_two_processes_converges_as_one(server: Server, client: BsoClient, tmp_path: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}")
    run = launch("pytorch_ddp.py", tmp_path, "--server-url", server.url, launcher=torchrun)
    assert run.returncode == 0, run.stderr
    for rank in range(2):
        assert f"Rank {rank}: metric 0.9" in run.stdout
    recorded = only_trial(client)
    assert (recorded.batch_size, recorded.converged, recorded.energy_source) == (128, True, "estimated")


def test_the_training_under_lightning_cli_converges(server: Server, client: BsoClient, tmp_path: Path) -> None:
    config = str(EXAMPLES / "lightning_cli.yaml")
    run = launch("lightning_cli.py", tmp_path, "fit", "--config", config, "--bso.server_url", server.url)
    assert run.returncode == 0, run.stderr
    assert "reached the target" in run.stderr
    recorded = only_trial(client)
    assert (recorded.batch_size, recorded.converged) == (128, True)


def test_under_lightning_cli_a_run_that_has_not_converged_exits_with_1(server: Server, tmp_path: Path) -> None:
    config = str(EXAMPLES / "lightning_cli.yaml")
    arguments = ("fit", "--config", config, "--bso.server_url", server.url, "--bso.job.max_epochs=1")
    with running("lightning_cli.py", tmp_path, *arguments) as (failed, stderr):
        pass
    assert failed.returncode == 1
    assert "ZeusBSOTrainFailError: batch size 128" in stderr.read_text()
