"""A program with Hydra that does not know the optimizer: a single run recurs, and the runs of a sweep do not."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lightning_bso import BsoClient
from tests.libraries.conftest import Environment
from tests.lightning.unaware import MODEL, OWN_SIZE, QUIET, automatic
from tests.servers import Server

TRAINING = f"""
import hydra
import lightning.pytorch as pl
{MODEL}
@hydra.main(version_base=None, config_path=".", config_name="config")
def main(config):
    trainer = pl.Trainer({QUIET}, enable_model_summary=False)
    print("the author's size is", config.batch_size, flush=True)
    trainer.fit(Model(config.width), Data(config.batch_size))
    return trainer.callback_metrics["val_loss"].item()

main()
"""
FITS = 6
BASIC = ["batch_size=16,32,64", "seed=1,2"]
OPTUNA = [
    *("hydra/sweeper=optuna", f"hydra.sweeper.n_trials={FITS}", "hydra.sweeper.n_jobs=1"),
    *("batch_size=choice(8,16,32)", "seed=range(1,9)"),
]


@pytest.fixture(scope="module")
def environment(new_environment: Callable[[], Environment]) -> Environment:
    """An environment with the callback's extra, Hydra, and its sweeper with Optuna."""
    environment = new_environment()
    environment.install("lightning", "hydra-core", "hydra-optuna-sweeper")
    return environment


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(f"sqlite:///{tmp_path / 'bso.db'}", tmp_path) as running:
        yield running


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A training with its configuration beside it. Its seed and batch size are no hyperparameters of the model."""
    (tmp_path / "config.yaml").write_text(f"width: 4\nseed: 1\nbatch_size: {OWN_SIZE}\n")
    (tmp_path / "train.py").write_text(TRAINING)
    return tmp_path / "train.py"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("sweep", [BASIC, OPTUNA], ids=["basic sweeper", "optuna"])
def test_a_sweep_trains_with_its_own_sizes_and_is_no_job(
    sweep: list[str], environment: Environment, server: Server, script: Path
) -> None:
    run = environment.launch(script, "--multirun", *sweep, **automatic(server.url))
    assert run.returncode == 0, run.stderr
    sizes = re.findall(r"trained with (\d+)", run.stdout)
    assert len(sizes) == FITS
    assert sizes == re.findall(r"the author's size is (\d+)", run.stdout)
    assert run.stderr.count("takes no part in this fit: the fit is called by hydra") == FITS
    assert BsoClient(server.url).list_jobs().jobs == []


@pytest.mark.timeout(1800)
def test_a_single_run_recurs(environment: Environment, server: Server, script: Path) -> None:
    for _ in range(2):
        run = environment.launch(script, **automatic(server.url))
        assert run.returncode == 0, run.stderr
    (listing,) = BsoClient(server.url).list_jobs().jobs
    assert listing.trials == 2
