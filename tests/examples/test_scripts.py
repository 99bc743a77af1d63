"""The trainings among the examples, launched as their docstrings say."""

import subprocess
import sys
from pathlib import Path

from lightning_bso import BsoClient
from lightning_bso.wire import TrialRecord
from tests.databases import free_port
from tests.servers import ROOT, WaitressServer, environment


def launch(script: str, folder: Path, *arguments: str, by: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    """Run an example from another folder than its own, if need be by a launcher."""
    return subprocess.run(
        [sys.executable, *by, str(ROOT / "examples" / script), *arguments],
        cwd=folder,
        env=environment(OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def trials(client: BsoClient, prefix: str) -> list[TrialRecord]:
    """All trials of the one job of an example."""
    (listed,) = (job for job in client.list_jobs().jobs if job.job_id.rpartition("-")[0] == prefix)
    return client.list_trials(listed.job_id).trials


def test_the_lightning_training_converges(server: WaitressServer, client: BsoClient, tmp_path: Path) -> None:
    run = launch("lightning_digits.py", tmp_path, "--server-url", server.url, "--seed", "0")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("Batch size 128: ")
    assert "reached the target" in run.stdout
    (recorded,) = trials(client, "digits")
    assert (recorded.batch_size, recorded.converged, recorded.energy_source) == (128, True, "estimated")
    assert recorded.energy > 0


def test_the_training_without_lightning_converges(server: WaitressServer, client: BsoClient, tmp_path: Path) -> None:
    run = launch("plain_pytorch.py", tmp_path, "--server-url", server.url)
    assert run.returncode == 0, run.stderr
    assert "reached the target" in run.stdout
    (recorded,) = trials(client, "digits-plain")
    assert (recorded.batch_size, recorded.converged) == (128, True)


def test_the_training_in_two_processes_converges_as_one(
    server: WaitressServer, client: BsoClient, tmp_path: Path
) -> None:
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}")
    run = launch("pytorch_ddp.py", tmp_path, "--server-url", server.url, by=torchrun)
    assert run.returncode == 0, run.stderr
    for rank in range(2):
        assert f"Rank {rank}: metric 0.9" in run.stdout
    (recorded,) = trials(client, "digits-ddp")
    assert (recorded.batch_size, recorded.converged, recorded.energy_source) == (128, True, "estimated")


def test_the_training_under_lightning_cli_converges(server: WaitressServer, client: BsoClient, tmp_path: Path) -> None:
    config = str(ROOT / "examples" / "lightning_cli.yaml")
    run = launch("lightning_cli.py", tmp_path, "fit", "--config", config, "--bso.server_url", server.url)
    assert run.returncode == 0, run.stderr
    assert "reached the target" in run.stderr
    (recorded,) = trials(client, "digits-cli")
    assert (recorded.batch_size, recorded.converged) == (128, True)
