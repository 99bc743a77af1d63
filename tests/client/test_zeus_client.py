"""This server with Zeus' own client, unchanged."""

import os
import subprocess
import sys
from pathlib import Path

from lightning_bso import BsoClient
from tests.servers import ROOT, Server

SCRIPT = Path(__file__).with_name("zeus_training.py")
PYDANTIC_1 = Path(sys.prefix) / "zeus-client"


def test_zeus_own_client_trains_a_recurring_job_against_this_server(tmp_path: Path) -> None:
    assert PYDANTIC_1.is_dir(), "the pydantic of Zeus' client is missing; `make install` puts it there"
    with Server(f"sqlite:///{tmp_path / 'bso.db'}", tmp_path) as server:
        run = subprocess.run(
            [sys.executable, str(SCRIPT), server.url, "7"],
            env=os.environ | {"PYTHONPATH": f"{PYDANTIC_1}{os.pathsep}{ROOT}", "ZEUS_LOG_LEVEL": "ERROR"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        launches = [line.split() for line in run.stdout.splitlines() if line[:1].isdigit()]
        trials = BsoClient(server.url).list_trials("imaginary-1").trials

    # The first pruning round tries smaller sizes from the default down, then larger ones. 128 never converges.
    assert [int(size) for size, _ in launches[:5]] == [64, 32, 128, 32, 64]
    assert [outcome for _, outcome in launches[:3]] == ["converged", "converged", "ZeusBSOTrainFailError"]
    assert [trial.batch_size for trial in trials] == [int(size) for size, _ in launches]
    assert {trial.type for trial in trials[5:]} == {"MAB"}
    assert [(t.batch_size, t.energy, t.current_epoch) for t in trials[:3]] == [(64, 75, 3), (32, 60, 2), (128, 100, 5)]
    assert all(trial.status == "Succeeded" for trial in trials)
