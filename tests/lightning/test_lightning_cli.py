"""BSOLightningCLI and the stock LightningCLI with a real server: flags, files, the environment, and switching off."""

import signal
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from torch.utils.data import DataLoader, TensorDataset

from lightning_bso import BsoClient, BSOLightningCLI, ZeusBSOCallback
from lightning_bso.wire import TrialRecord
from tests import warm
from tests.client.jobs import only_trial
from tests.servers import ROOT, Server, environment

QUIET = [
    "--trainer.max_epochs=3",
    "--trainer.accelerator=cpu",
    "--trainer.logger=false",
    "--trainer.enable_checkpointing=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]
STOCK = "--trainer.callbacks"


class Module(pl.LightningModule):
    """A training whose metric reaches the target in its first validation."""

    def __init__(self, batch_size: int = 4) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        return self.layer(batch[0]).mean() ** 2

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        self.log("val_acc", 1.0)

    def train_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        return DataLoader(TensorDataset(torch.rand(64, 1)), batch_size=self.batch_size)

    def val_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        return self.train_dataloader()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def flags(group: str, **values: object) -> list[str]:
    """Return values as the command-line arguments of a group."""
    return [f"--{group}.{name}={value}" for name, value in values.items()]


def launch(*arguments: str, cli: type[LightningCLI] = BSOLightningCLI, **options: object) -> LightningCLI:
    """Launch a script with these arguments."""
    return cli(Module, args=list(arguments), save_config_kwargs={"overwrite": True}, **options)


def callbacks(cli: LightningCLI) -> list[ZeusBSOCallback]:
    """Return the optimizer's callbacks of a launch."""
    return [callback for callback in cli.trainer.callbacks if isinstance(callback, ZeusBSOCallback)]


def newest_trial(client: BsoClient, cli: LightningCLI) -> TrialRecord:
    """Return the newest trial of a launch's job from the server."""
    (bso,) = callbacks(cli)
    assert bso.job_id is not None
    return client.list_trials(bso.job_id).trials[-1]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def job(**changes: object) -> dict[str, object]:
    """Return the fields of a job that no other test uses."""
    fields = {"batch_sizes": [16, 32], "default_batch_size": 16, "max_epochs": 3}
    return {"job_id_prefix": f"from-cli-{uuid4().hex}"} | fields | changes


@pytest.fixture
def job_file(tmp_path: Path) -> str:
    """A job in its own file."""
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job()))
    return str(path)


def test_flags_name_the_server_and_the_job(server: Server, client: BsoClient) -> None:
    cli = launch("fit", *QUIET, *flags("bso", server_url=server.url), *flags("bso.job", **job()))
    trial = newest_trial(client, cli)
    assert (trial.batch_size, trial.converged) == (16, True)
    assert cli.model.batch_size == 16


def test_a_flag_beside_the_jobs_file_wins(server: Server, client: BsoClient, job_file: str) -> None:
    cli = launch(
        "fit", *QUIET, f"--bso.server_url={server.url}", f"--bso.job={job_file}", "--bso.job.default_batch_size=32"
    )
    assert newest_trial(client, cli).batch_size == 32


def test_a_field_may_be_null(server: Server, client: BsoClient, job_file: str) -> None:
    # Null selects the default for gpu_model and mab_seed. For beta_knob it means no bound, which is not the default.
    fields = {"beta_knob": "null", "gpu_model": "null", "mab_seed": "null"}
    cli = launch("fit", *QUIET, f"--bso.server_url={server.url}", f"--bso.job={job_file}", *flags("bso.job", **fields))
    (bso,) = callbacks(cli)
    assert client.describe(str(bso.job_id)).spec.beta_knob is None


def test_a_script_may_call_fit(server: Server, client: BsoClient, job_file: str) -> None:
    cli = launch(*QUIET, f"--bso.server_url={server.url}", f"--bso.job={job_file}", run=False)
    cli.trainer.fit(cli.model)
    assert newest_trial(client, cli).converged


def test_the_environment_turns_it_on(
    server: Server, client: BsoClient, job_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEUS_BSO_SERVER_URL", server.url)
    assert newest_trial(client, launch("fit", *QUIET, f"--bso.job={job_file}")).batch_size == 16


def test_the_environment_of_a_cli_holds_the_options_too(
    server: Server, client: BsoClient, job_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PL_FIT__BSO__SERVER_URL", server.url)
    monkeypatch.setenv("PL_FIT__BSO__JOB", job_file)
    assert newest_trial(client, launch("fit", *QUIET, parser_kwargs={"default_env": True})).batch_size == 16


def test_a_printed_configuration_can_be_given_and_holds_no_token(
    server: Server,
    client: BsoClient,
    job_file: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setenv("ZEUS_BSO_TOKEN", "zbso_not-to-be-saved")
        launch("fit", *QUIET, f"--bso.server_url={server.url}", f"--bso.job={job_file}", "--print_config")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "not-to-be-saved" not in printed
    config = tmp_path / "config.yaml"
    config.write_text(printed)
    assert newest_trial(client, launch("fit", f"--config={config}")).batch_size == 16


def test_the_configuration_saved_with_the_logs_can_be_given_again(
    server: Server, client: BsoClient, job_file: str, tmp_path: Path
) -> None:
    arguments = [argument for argument in QUIET if "logger" not in argument]
    launch(
        "fit",
        *arguments,
        "--trainer.logger=CSVLogger",
        f"--trainer.logger.save_dir={tmp_path}",
        f"--bso.server_url={server.url}",
        f"--bso.job={job_file}",
    )
    (saved,) = tmp_path.rglob("config.yaml")
    assert newest_trial(client, launch("fit", f"--config={saved}")).trial_number == 2


@pytest.mark.parametrize("arguments", [[], ["--bso.job.eta_knob=0.9"], ["--bso.job=null"], ['--config={"bso": null}']])
def test_without_a_server_it_is_off_and_the_job_may_be_incomplete(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZEUS_BSO_SERVER_URL", raising=False)
    cli = launch("fit", *QUIET, *arguments)
    assert callbacks(cli) == []
    assert cli.trainer.current_epoch == 3


def test_only_fit_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEUS_BSO_SERVER_URL", "http://127.0.0.1:9")
    assert callbacks(launch("validate", *(argument for argument in QUIET if "epochs" not in argument))) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bso.job.job_id_prefix=x", "--bso.job.batch_sizes=[1,2]"], "--bso.job.default_batch_size: Field required"),
        (flags("bso.job", **job(default_batch_size=17)), "default_batch_size 17 is not among batch_sizes"),
        (flags("bso.job", **job(eta_knob="a")), "bso.job.eta_knob"),
        (["--bso.job.job_id_prefx=x"], "--bso.job.job_id_prefx"),
        ([*flags("bso.job", **job()), "--bso.on_fail=ignore"], "bso.on_fail"),
        ([*flags("bso.job", **job()), "--bso.accumulate=auto"], "accumulate='auto' requires max_device_batch_size"),
        ([*flags("bso.job", **job()), "--bso.server_url=localhost:8000"], "'localhost:8000' is not an address"),
        (["--bso.job=null"], "--bso.job.job_id_prefix: Field required"),
    ],
)
def test_an_error_message_names_the_flag(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        launch("fit", *QUIET, "--bso.server_url=http://127.0.0.1:9", *arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("how", "status"), [(signal.SIGINT, 1), (signal.SIGTERM, 0)])
def test_an_interrupted_script_exits_as_without_the_optimizer_and_leaves_its_trial_open(
    how: signal.Signals, status: int, server: Server, client: BsoClient, tmp_path: Path
) -> None:
    fields = job(target_metric=1.0)
    arguments = ["fit", *QUIET, f"--bso.server_url={server.url}", *flags("bso.job", **fields)]
    log = tmp_path / "stderr.txt"
    with log.open("w") as stderr:
        variables = environment(OMP_NUM_THREADS="1")
        script = warm.start(
            [warm.CLI, *arguments], cwd=ROOT, env=variables, stdout=None, stderr=stderr, pipe_stdin=True
        )
    try:
        assert script.stdin is not None
        assert script.stdout is not None
        script.stdin.write("go\n")  # through epoch 0
        script.stdin.flush()
        while (line := script.stdout.readline()) != "epoch 1\n":
            assert line, log.read_text()
        script.send_signal(how)
        with suppress(BrokenPipeError):
            script.stdin.write("go\n")  # Lightning ends the batch before it handles a SIGTERM
            script.stdin.flush()
        assert script.wait(60) == status, log.read_text()
    finally:
        script.send_signal(signal.SIGKILL)
    trial = only_trial(client, str(fields["job_id_prefix"]))
    assert (trial.status, trial.current_epoch) == ("Dispatched", 1)


@pytest.mark.parametrize("given", ["on the command line", "in the configuration"])
def test_a_script_learns_its_target_if_that_is_auto(
    given: str, server: Server, client: BsoClient, tmp_path: Path
) -> None:
    fields = job(target_metric="auto")
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"bso": {"job": fields}}))
    named = [f"--config={config}"] if given == "in the configuration" else flags("bso.job", **fields)
    log = tmp_path / "stderr.txt"
    with log.open("w") as output:
        script = warm.start(
            [warm.CLI, "fit", *QUIET, f"--bso.server_url={server.url}", *named],
            cwd=ROOT,
            env=environment(OMP_NUM_THREADS="1"),
            stdout=output,
            stderr=output,
            pipe_stdin=True,
        )
    try:
        assert script.stdin is not None
        script.stdin.write("go\n" * 3)  # through all epochs
        script.stdin.flush()
        assert script.wait(60) == 0, log.read_text()
    finally:
        script.send_signal(signal.SIGKILL)
    trial = only_trial(client, str(fields["job_id_prefix"]))
    assert (trial.type, trial.status, trial.current_epoch) == ("Calibration", "Calibrated", 3)


@pytest.mark.parametrize("value", ["aut", "true", "'0.5'"])
def test_another_word_than_auto_is_no_target(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        launch("fit", *QUIET, "--bso.server_url=http://127.0.0.1:9", *flags("bso.job", **job(target_metric=value)))
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "bso.job.target_metric" in message
    assert "Literal['auto']" in message


def test_help_explains_the_options_and_the_jobs_fields(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        launch("fit", "--help")
    printed = " ".join(capsys.readouterr().out.split())
    assert "--bso.monitor MONITOR name of the logged validation metric" in printed
    assert "--bso.job.job_id_prefix JOB_ID_PREFIX Common beginning of the names of this training's jobs" in printed
    assert "--bso.token" not in printed
    assert '"auto" or None: the job learns it from its first runs' in printed


@pytest.mark.parametrize(("target", "stage"), [(0.9, "MAB"), ("auto", "Calibration")])
def test_the_stock_cli_takes_the_callback_and_the_jobs_fields(
    server: Server, client: BsoClient, target: float | str, stage: str
) -> None:
    cli = launch(
        "fit",
        *QUIET,
        f"{STOCK}+=lightning_bso.ZeusBSOCallback",
        f"{STOCK}.server_url={server.url}",
        *flags(f"{STOCK[2:]}.job", **job(target_metric=target)),
        cli=LightningCLI,
    )
    trial = newest_trial(client, cli)
    assert (trial.batch_size, trial.type) == (16, stage)


def test_the_stock_cli_takes_the_callback_by_its_name_alone(server: Server, job_file: str) -> None:
    added = f"{STOCK}+=ZeusBSOCallback"
    cli = launch(
        "fit",
        *QUIET,
        added,
        f"{STOCK}.server_url={server.url}",
        f"{STOCK}.job={job_file}",
        cli=LightningCLI,
    )
    assert callbacks(cli)[0].trial_number == 1


class GroupCLI(LightningCLI):
    """A user's own LightningCLI, with the callback as a group."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(ZeusBSOCallback, "bso")


def test_a_group_of_the_stock_cli_is_on_with_a_server(server: Server, client: BsoClient, job_file: str) -> None:
    cli = launch("fit", *QUIET, f"--bso.server_url={server.url}", f"--bso.job={job_file}", cli=GroupCLI)
    assert newest_trial(client, cli).batch_size == 16


@pytest.mark.parametrize("arguments", [[], ["--bso.job=null"]])
def test_a_group_of_the_stock_cli_is_off_without_a_server(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZEUS_BSO_SERVER_URL", raising=False)
    cli = launch("fit", *QUIET, *arguments, cli=GroupCLI)
    assert callbacks(cli)[0].batch_size is None
    assert cli.trainer.current_epoch == 3
