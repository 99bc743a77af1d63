"""The example trainings, launched with the commands in their docstrings."""

import signal
import subprocess
import sys
from pathlib import Path

from lightning_bso import BsoClient
from lightning_bso.wire import TrialRecord
from tests.client.scripted import Request, ScriptedServer, handed_on
from tests.databases import free_port
from tests.servers import ROOT, WaitressServer, environment


def begin(script: str, folder: Path, *arguments: str, by: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    """Start an example in another folder than its own, through a launcher if one is given."""
    return subprocess.Popen(
        [sys.executable, *by, str(ROOT / "examples" / script), *arguments],
        cwd=folder,
        env=environment(OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launch(script: str, folder: Path, *arguments: str, by: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    """Run an example to its end."""
    with begin(script, folder, *arguments, by=by) as process:
        try:
            stdout, stderr = process.communicate(timeout=120)
        finally:
            process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def only_trial(client: BsoClient) -> TrialRecord:
    """Return the only trial of the only job on a server."""
    (job,) = client.list_jobs().jobs
    (trial,) = client.list_trials(job.job_id).trials
    return trial


def test_the_lightning_training_converges(server: WaitressServer, client: BsoClient, tmp_path: Path) -> None:
    run = launch("lightning_digits.py", tmp_path, "--server-url", server.url, "--seed", "0")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("Batch size 128: ")
    assert "reached the target" in run.stdout
    recorded = only_trial(client)
    assert (recorded.batch_size, recorded.converged, recorded.energy_source) == (128, True, "estimated")
    assert recorded.energy > 0


def test_the_lightning_training_in_two_processes_converges_as_one(
    server: WaitressServer, client: BsoClient, tmp_path: Path
) -> None:
    run = launch("lightning_digits.py", tmp_path, "--server-url", server.url, "--devices", "2")
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("reached the target") == 2
    recorded = only_trial(client)
    assert (recorded.converged, recorded.energy_source) == (True, "estimated")


def test_the_lightning_training_goes_on_in_its_trial_after_a_sigterm(
    server: WaitressServer, client: BsoClient, scripted: ScriptedServer, tmp_path: Path
) -> None:
    def preempt(request: Request) -> None:
        if request.path == "/report" and request.body["current_epoch"] == 3:
            running.send_signal(signal.SIGTERM)

    scripted.script = handed_on(server.url, preempt)
    checkpoints = ("--checkpoints", str(tmp_path / "run"))
    with begin("lightning_digits.py", tmp_path, "--server-url", scripted.url, *checkpoints) as running:
        _, stderr = running.communicate(timeout=120)
    interrupted = only_trial(client)
    assert (interrupted.status, interrupted.current_epoch) == ("Dispatched", 3), stderr

    resumed = launch("lightning_digits.py", tmp_path, "--server-url", server.url, *checkpoints)
    assert resumed.returncode == 0, resumed.stderr
    ended = only_trial(client)
    assert ended.converged
    assert ended.energy > interrupted.energy


def test_the_training_without_lightning_converges(server: WaitressServer, client: BsoClient, tmp_path: Path) -> None:
    run = launch("plain_pytorch.py", tmp_path, "--server-url", server.url)
    assert run.returncode == 0, run.stderr
    assert "reached the target" in run.stdout
    recorded = only_trial(client)
    assert (recorded.batch_size, recorded.converged) == (128, True)


def test_the_training_in_two_processes_converges_as_one(
    server: WaitressServer, client: BsoClient, tmp_path: Path
) -> None:
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}")
    run = launch("pytorch_ddp.py", tmp_path, "--server-url", server.url, by=torchrun)
    assert run.returncode == 0, run.stderr
    for rank in range(2):
        assert f"Rank {rank}: metric 0.9" in run.stdout
    recorded = only_trial(client)
    assert (recorded.batch_size, recorded.converged, recorded.energy_source) == (128, True, "estimated")


def test_the_training_under_lightning_cli_converges(server: WaitressServer, client: BsoClient, tmp_path: Path) -> None:
    config = str(ROOT / "examples" / "lightning_cli.yaml")
    run = launch("lightning_cli.py", tmp_path, "fit", "--config", config, "--bso.server_url", server.url)
    assert run.returncode == 0, run.stderr
    assert "reached the target" in run.stderr
    recorded = only_trial(client)
    assert (recorded.batch_size, recorded.converged) == (128, True)


def test_under_lightning_cli_a_run_that_has_not_converged_exits_with_1(server: WaitressServer, tmp_path: Path) -> None:
    config = str(ROOT / "examples" / "lightning_cli.yaml")
    arguments = ("fit", "--config", config, "--bso.server_url", server.url, "--bso.job.max_epochs=1")
    run = launch("lightning_cli.py", tmp_path, *arguments)
    assert run.returncode == 1
    assert "ZeusBSOTrainFailError: batch size 128" in run.stderr
