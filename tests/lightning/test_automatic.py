"""Programs that do not know the optimizer get it by two environment variables. It ends none of their trainings."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from lightning_bso import BsoClient
from lightning_bso.console.doctor import Finding, check_training
from tests.client.scripted import Reply, Request, ScriptedServer, handed_on
from tests.databases import connected, free_port
from tests.lightning.unaware import (
    COMMAND_LINE,
    MODEL,
    OWN_SIZE,
    PLAIN,
    QUIET,
    SAMPLES,
    Launch,
    automatic,
    final_weights,
    launch,
)
from tests.servers import Server

LAUNCHES = 6
CALIBRATION_RUNS = 3
STANDS_ASIDE = "goes on without the automatic batch-size optimizer"
TAKES_NO_PART = "takes no part in this fit"


@pytest.fixture
def server(new_database: Callable[[str, Path], str], tmp_path: Path) -> Server:
    """A server for one test. The test or `running` starts it."""
    return Server(new_database("sqlite", tmp_path), tmp_path)


def trials_of_each_job(client: BsoClient) -> list[int]:
    return [listing.trials for listing in client.list_jobs().jobs]


def without_us(script: str, folder: Path) -> tuple[Launch, object]:
    run = launch(script, folder)
    assert run.exit_status == 0, run.errors
    return run, final_weights(folder)


@pytest.mark.parametrize("script", [PLAIN, COMMAND_LINE])
def test_the_first_launches_take_the_authors_batch_size_and_later_ones_others(
    script: str, server: Server, tmp_path: Path
) -> None:
    with server:
        runs = [launch(script, tmp_path, **automatic(server.url)) for _ in range(LAUNCHES)]
        assert [run.exit_status for run in runs] == [0] * LAUNCHES, runs[-1].errors
        sizes = [size for run in runs for size in run.sizes]
        assert len(sizes) == LAUNCHES, runs[-1].output
        assert set(sizes[:CALIBRATION_RUNS]) == {OWN_SIZE}
        assert set(sizes[CALIBRATION_RUNS:]) - {OWN_SIZE}, sizes
        assert all(f"left at {OWN_SIZE}" in run.output for run in runs)
        (listing,) = BsoClient(server.url).list_jobs().jobs
        assert listing.job_id.startswith("Model-Data-")
        assert listing.trials == LAUNCHES
        spec = BsoClient(server.url).describe(listing.job_id).spec
        assert spec.batch_sizes == [2, 4, 8, 16, 32, 64]  # 64 samples fill four batches
        assert (spec.default_batch_size, spec.max_epochs, spec.higher_is_better_metric) == (OWN_SIZE, 3, False)


@pytest.mark.parametrize("script", [PLAIN, COMMAND_LINE])
def test_a_calibration_run_is_the_training_that_it_would_be_without_us(
    script: str, server: Server, tmp_path: Path
) -> None:
    _, weights = without_us(script, tmp_path)
    with server:
        run = launch(script, tmp_path, **automatic(server.url))
        assert trials_of_each_job(BsoClient(server.url)) == [1]
    assert (run.exit_status, final_weights(tmp_path)) == (0, weights)


def test_without_a_server_the_training_is_the_same(tmp_path: Path) -> None:
    before, weights = without_us(PLAIN, tmp_path)
    run = launch(PLAIN, tmp_path, **automatic(f"http://127.0.0.1:{free_port()}"))
    assert (run.exit_status, run.output, final_weights(tmp_path)) == (0, before.output, weights)
    assert f"{STANDS_ASIDE}: ServerUnreachable" in run.errors


def test_with_a_wrong_token_the_training_is_the_same(guarded: tuple[Server, str], tmp_path: Path) -> None:
    running, _ = guarded
    before, weights = without_us(COMMAND_LINE, tmp_path)
    run = launch(COMMAND_LINE, tmp_path, **automatic(running.url, ZEUS_BSO_TOKEN="wrong"))
    assert (run.exit_status, run.output, final_weights(tmp_path)) == (0, before.output, weights)
    assert f"{STANDS_ASIDE}: ServerRefused" in run.errors


def test_with_a_database_that_takes_no_writes_the_training_is_the_same(server: Server, tmp_path: Path) -> None:
    before, weights = without_us(PLAIN, tmp_path)
    with server:
        with connected(server.database_url) as connection:
            connection.exec_driver_sql(
                "CREATE TRIGGER read_only BEFORE INSERT ON jobs BEGIN SELECT RAISE(ABORT, 'a readonly database'); END"
            )
        run = launch(PLAIN, tmp_path, **automatic(server.url))
    assert (run.exit_status, run.output, final_weights(tmp_path)) == (0, before.output, weights)
    assert f"{STANDS_ASIDE}: ServerUnreachable" in run.errors
    assert "HTTP 503" in run.errors
    # The server takes over a second for each, because it tries the transaction several times.
    assert 1 <= server.read_log().count('"method": "POST", "path": "/jobs"') <= 3


def test_with_a_server_that_falls_silent_the_training_is_the_same_and_waits_once(
    server: Server, scripted: ScriptedServer, tmp_path: Path
) -> None:
    before, weights = without_us(PLAIN, tmp_path)
    with server:
        real = handed_on(server.url)
        scripted.script = lambda request: real(request) if request.method == "GET" else scripted.hang(request)
        run = launch(PLAIN, tmp_path, **automatic(scripted.url))
    assert (run.exit_status, run.output, final_weights(tmp_path)) == (0, before.output, weights)
    assert [request.method for request in scripted.requests] == ["GET", "POST"]
    assert "(timed out after 3 s)" in run.errors


@pytest.mark.parametrize(
    ("training", "reason"),
    [
        (PLAIN.replace("self.batch_size", "self.rows"), "found no attribute 'batch_size'"),
        (PLAIN.replace("self.batch_size = batch_size", "self.batch_size = None"), "holds no number"),
        (PLAIN.replace("def val_dataloader", "def other_dataloader"), "learns from validations, and this fit has none"),
        (PLAIN.replace("batch_size=self.batch_size", "batch_size=13"), "did not reach the train loader, which has 13"),
        (PLAIN.replace("val_loss", "score"), "found no such metric after the validation. Logged metrics: score"),
    ],
)
def test_what_the_callback_refuses_is_one_warning(training: str, reason: str, server: Server, tmp_path: Path) -> None:
    training = training.replace('print("left at", data.batch_size)', "")
    if "batch_size = None" in training:
        training = training.replace("batch_size=self.batch_size", "batch_size=13")
    before, weights = without_us(training, tmp_path)
    with server:
        run = launch(training, tmp_path, **automatic(server.url))
    assert (run.exit_status, run.output, final_weights(tmp_path)) == (0, before.output, weights)
    assert reason in run.errors
    assert run.errors.count(STANDS_ASIDE) == 1


HOOKS = ["setup", "on_train_start", "on_train_batch_end", "on_validation_end", "state_dict", "on_fit_end", "teardown"]


@pytest.mark.parametrize("hook", HOOKS)
def test_an_unexpected_error_in_a_hook_ends_no_training(hook: str, server: Server, tmp_path: Path) -> None:
    broken = f"""
from lightning_bso.lightning.callback import ZeusBSOCallback
def fail(*_, **__):
    raise RuntimeError("a fault of ours")
ZeusBSOCallback.{hook} = fail
"""
    _, weights = without_us(PLAIN, tmp_path)
    with server:
        run = launch(broken + PLAIN, tmp_path, **automatic(server.url))
        trials = BsoClient(server.url).list_trials
        outcomes = [
            trial.outcome for job in BsoClient(server.url).list_jobs().jobs for trial in trials(job.job_id).trials
        ]
    assert (run.exit_status, final_weights(tmp_path)) == (0, weights), run.errors
    assert f"{STANDS_ASIDE}: RuntimeError: a fault of ours" in run.errors
    assert f"left at {OWN_SIZE}" in run.output
    assert None not in outcomes  # no trial stays open


def test_a_batch_size_that_todays_data_cannot_fill_is_put_back(server: Server, tmp_path: Path) -> None:
    """The author's batch size is 1. The data have shrunk to one sample, and the loader drops an incomplete batch."""
    first = PLAIN.replace(f"batch_size: int = {OWN_SIZE}", "batch_size: int = 1")
    shrunk = first.replace(f"torch.randn({SAMPLES}", "torch.randn(1").replace("shuffle=True", "drop_last=True")
    with server:
        for _ in range(CALIBRATION_RUNS):
            assert launch(first, tmp_path, **automatic(server.url)).exit_status == 0
        run = launch(shrunk, tmp_path, **automatic(server.url))
        (listing,) = BsoClient(server.url).list_jobs().jobs
        trial = BsoClient(server.url).list_trials(listing.job_id).trials[-1]
    assert (run.exit_status, run.sizes) == (0, [1]), run.errors
    assert trial.batch_size > 1
    assert trial.outcome == f"an epoch would have 0 batches of {trial.batch_size} samples, and it needs 1"


def test_trainers_that_share_a_list_of_callbacks_train(server: Server, tmp_path: Path) -> None:
    early = "from lightning.pytorch.callbacks import EarlyStopping\ncallbacks = [EarlyStopping('val_loss')]\n"
    shared = PLAIN.replace(
        "trainer = pl.Trainer(",
        f"{early}pl.Trainer({QUIET}, callbacks=callbacks)\ntrainer = pl.Trainer(callbacks=callbacks, ",
    )
    with server:
        run = launch(shared, tmp_path, **automatic(server.url))
        trials = trials_of_each_job(BsoClient(server.url))
    assert (run.exit_status, trials) == (0, [1]), run.errors


def test_a_batch_that_does_not_fit_in_memory_is_split_also_where_warnings_are_errors(
    server: Server, tmp_path: Path
) -> None:
    step = "def training_step(self, batch, index):\n"
    small = "import warnings; warnings.filterwarnings('error', module='lightning_bso')\n" + PLAIN.replace(
        step, f"{step}        if len(batch[0]) > 8: raise torch.OutOfMemoryError('out')\n"
    )
    assert launch(small, tmp_path).exit_status == 1
    with server:
        runs = [launch(small, tmp_path, **automatic(server.url)) for _ in range(2)]
        (listing,) = BsoClient(server.url).list_jobs().jobs
        trials = BsoClient(server.url).list_trials(listing.job_id).trials
    assert [(run.exit_status, run.sizes) for run in runs] == [(0, [8])] * 2, runs[-1].errors
    assert ["Out of memory in training" in run.errors for run in runs] == [True, False]
    assert [(trial.batch_size, trial.accumulate_grad_batches) for trial in trials] == [(OWN_SIZE, 2)] * 2


@pytest.mark.parametrize(
    "broken",
    ["self.global_step > 14", "self.global_step and len(batch[0]) not in (16, 9)"],
    ids=["more steps than a schedule has", "another shape"],
)
def test_code_for_one_batch_size_breaks_once_in_a_direction_and_then_keeps_it(
    broken: str, server: Server, tmp_path: Path
) -> None:
    """73 samples are four batches of 16 and one of 9 in each of three epochs. No larger batch size fills four."""
    step = "def training_step(self, batch, index):\n"
    picky = PLAIN.replace(step, f"{step}        if {broken}: raise ValueError('made for one batch size')\n")
    picky = picky.replace(f"torch.randn({SAMPLES}", "torch.randn(73")
    assert launch(picky, tmp_path).exit_status == 0
    with server:
        runs = [launch(picky, tmp_path, **automatic(server.url)) for _ in range(LAUNCHES + 2)]
        (listing,) = BsoClient(server.url).list_jobs().jobs
        job = BsoClient(server.url).describe(listing.job_id)
    statuses = [run.exit_status for run in runs]
    assert sum(statuses) == 1, statuses
    assert {size.batch_size for size in job.batch_sizes if size.ruled_out} == {2, 4, 8}
    assert any("made for one batch size" in str(size.ruled_out) for size in job.batch_sizes)


def test_a_fault_of_the_machine_rules_no_batch_size_out(server: Server, tmp_path: Path) -> None:
    step = "def training_step(self, batch, index):\n"
    fault = "RuntimeError('CUDA error: uncorrectable ECC error encountered')"
    flaky = PLAIN.replace(step, f"{step}        if self.current_epoch and len(batch[0]) != 16: raise {fault}\n")
    with server:
        runs = [launch(flaky, tmp_path, **automatic(server.url)) for _ in range(CALIBRATION_RUNS + 1)]
        (listing,) = BsoClient(server.url).list_jobs().jobs
        job = BsoClient(server.url).describe(listing.job_id)
    assert [run.exit_status for run in runs] == [0] * CALIBRATION_RUNS + [1]
    assert not [size for size in job.batch_sizes if size.ruled_out]


def test_a_last_batch_of_one_sample_that_batch_normalization_refuses_is_no_batch_size_of_that_day(
    server: Server, tmp_path: Path
) -> None:
    """73 samples leave one sample in the last batch of 8, 4 and 2, and fill four batches of no more than 16."""
    normalized = PLAIN.replace(f"torch.randn({SAMPLES}", "torch.randn(73").replace(
        "torch.nn.Linear(8, width), ", "torch.nn.Linear(8, width), torch.nn.BatchNorm1d(width), "
    )
    with server:
        runs = [launch(normalized, tmp_path, **automatic(server.url)) for _ in range(LAUNCHES + 2)]
        (listing,) = BsoClient(server.url).list_jobs().jobs
        job = BsoClient(server.url).describe(listing.job_id)
        trials = BsoClient(server.url).list_trials(listing.job_id).trials
    assert [run.exit_status for run in runs] == [0] * len(runs), runs[-1].errors
    outcomes = {trial.batch_size: trial.outcome for trial in trials if trial.batch_size < OWN_SIZE}
    assert outcomes, [trial.batch_size for trial in trials]
    assert all("has a single sample" in str(outcome) for outcome in outcomes.values())
    assert not [size for size in job.batch_sizes if "single sample" in str(size.ruled_out)]


def test_a_metric_that_not_every_validation_logs_stays_for_other_callbacks(server: Server, tmp_path: Path) -> None:
    seldom = PLAIN.replace(
        'self.log("val_loss"', 'if self.trainer.current_epoch % 2 == 0: self.log("val_loss"'
    ).replace(
        "trainer = pl.Trainer(",
        "from lightning.pytorch.callbacks import EarlyStopping\n"
        "trainer = pl.Trainer(callbacks=[EarlyStopping('val_loss')], ",
    )
    _, weights = without_us(seldom, tmp_path)
    with server:
        run = launch(seldom, tmp_path, **automatic(server.url))
    assert (run.exit_status, final_weights(tmp_path)) == (0, weights), run.errors
    assert "found no such metric after the validation" in run.errors


SWEEP = f"""
import optuna
import lightning.pytorch as pl
{MODEL}
sizes = []

def objective(trial):
    size = trial.suggest_int("batch_size", 10, 40)
    sizes.append(size)
    trainer = pl.Trainer({QUIET}, enable_model_summary=False)
    trainer.fit(Model(), Data(size))
    return trainer.callback_metrics["val_loss"].item()

optuna.logging.set_verbosity(optuna.logging.ERROR)
optuna.create_study(sampler=optuna.samplers.RandomSampler(1)).optimize(objective, n_trials=20)
print("the author's sizes:", sizes)
"""
LOOP = f"""
import lightning.pytorch as pl
{MODEL}
sizes = list(range(10, 30))
for size in sizes:
    pl.Trainer({QUIET}, enable_model_summary=False).fit(Model(), Data(size))
print("the author's sizes:", sizes)
"""


@pytest.mark.parametrize(("script", "trials"), [(SWEEP, []), (LOOP, [1])])
def test_a_sweep_trains_with_its_own_sizes(script: str, trials: list[int], server: Server, tmp_path: Path) -> None:
    with server:
        run = launch(script, tmp_path, **automatic(server.url))
        assert run.exit_status == 0, run.errors
        assert trials_of_each_job(BsoClient(server.url)) == trials
    assert len(run.sizes) == 20
    assert f"the author's sizes: {run.sizes}" in run.output
    assert run.errors.count(TAKES_NO_PART) == 20 - len(trials)


OTHER_SIZE = 2 * OWN_SIZE
OTHER = PLAIN.replace(f"batch_size: int = {OWN_SIZE}", f"batch_size: int = {OTHER_SIZE}")


def test_launches_with_several_batch_sizes_keep_them_and_one_job_has_one_default(
    server: Server, tmp_path: Path
) -> None:
    """A loop of the shell over batch sizes sets no variable, and nothing but the batch size differs."""
    _, weights = without_us(OTHER, tmp_path)
    with server:
        for number in range(1, CALIBRATION_RUNS + 1):
            assert launch(PLAIN, tmp_path, **automatic(server.url)).sizes == [OWN_SIZE]
            other = launch(OTHER, tmp_path, **automatic(server.url))
            assert (other.exit_status, other.sizes, final_weights(tmp_path)) == (0, [OTHER_SIZE], weights), other.errors
            why = f"began with batch size {OWN_SIZE}. This launch has {OTHER_SIZE} and keeps it"
            assert other.errors.count(STANDS_ASIDE) == other.errors.count(why) == 1
            assert trials_of_each_job(BsoClient(server.url)) == [number]
        renamed = launch(OTHER, tmp_path, **automatic(server.url, ZEUS_BSO_JOB="with-more"))
        assert trials_of_each_job(BsoClient(server.url)) == [1, CALIBRATION_RUNS], renamed.errors


def test_two_first_launches_with_two_batch_sizes_at_once_are_not_one_job(
    server: Server, scripted: ScriptedServer, tmp_path: Path
) -> None:
    with server:
        assert launch(PLAIN, tmp_path, **automatic(server.url)).exit_status == 0
        real, questions = handed_on(server.url), []

        def later(request: Request) -> Reply:
            """Answer as a server that learns of the job just after it was asked for it."""
            questions.append(request.method)
            return Reply(404, {"message": "no such job"}) if questions == ["GET"] else real(request)

        scripted.script = later
        run = launch(OTHER, tmp_path, **automatic(scripted.url))
        assert trials_of_each_job(BsoClient(server.url)) == [1]
    assert (run.exit_status, run.sizes, questions) == (0, [OTHER_SIZE], ["GET", "POST", "GET"]), run.errors
    assert f"began with batch size {OWN_SIZE}" in run.errors


def test_classes_of_one_name_in_two_scripts_are_two_trainings(server: Server, tmp_path: Path) -> None:
    with server:
        for name in ("churn.py", "prices.py", "churn.py"):
            run = launch(PLAIN, tmp_path, file_name=name, **automatic(server.url))
            assert run.exit_status == 0, run.errors
        assert sorted(trials_of_each_job(BsoClient(server.url))) == [1, 2]


OWN_CALLBACK = PLAIN.replace("pl.Trainer(", "pl.Trainer(callbacks=lightning_bso.ZeusBSOCallback(), ").replace(
    "import torch\n", "import torch\nimport lightning_bso\n", 1
)


IN_A_TEST = f"""
import unittest

class Test(unittest.TestCase):
    def test_it(self):
        exec({PLAIN!r}, {{"__name__": "tested"}})

unittest.main()
"""


@pytest.mark.parametrize(
    ("script", "variables", "reason"),
    [
        (PLAIN.replace("pl.Trainer(", "pl.Trainer(fast_dev_run=True, "), {}, "this is a fast_dev_run"),
        (PLAIN, {"PYTEST_CURRENT_TEST": "a test"}, "the fit is part of a test"),
        (IN_A_TEST, {}, "the fit is part of a test (unittest)"),
        (PLAIN, {"WANDB_SWEEP_ID": "a sweep"}, "$WANDB_SWEEP_ID is set"),
        (PLAIN, {"ZEUS_BSO_AUTO_EXCLUDE": "Other*, Model-*"}, "matches a pattern of $ZEUS_BSO_AUTO_EXCLUDE"),
        (PLAIN, {"ZEUS_BSO_AUTO_INCLUDE": "Other*"}, "'Model-Data' matches no pattern of $ZEUS_BSO_AUTO_INCLUDE"),
        (OWN_CALLBACK, {}, "has a ZeusBSOCallback of its own"),
    ],
)
def test_it_takes_no_part_in_other_fits_and_says_why(
    script: str, variables: dict[str, str], reason: str, server: Server, tmp_path: Path
) -> None:
    with server:
        run = launch(script, tmp_path, **automatic(server.url, **variables))
        by_the_author = [1] if script == OWN_CALLBACK else []
        assert trials_of_each_job(BsoClient(server.url)) == by_the_author, run.errors
    assert run.exit_status == 0, run.errors
    assert f"{TAKES_NO_PART}: " in run.errors
    assert reason in run.errors


@pytest.mark.parametrize("variables", [{}, {"ZEUS_BSO_AUTO": "1"}, {"ZEUS_BSO_AUTO": "0"}])
def test_it_is_off_without_both_variables(variables: dict[str, str], tmp_path: Path) -> None:
    url = {"ZEUS_BSO_SERVER_URL": "http://127.0.0.1:9"} if variables != {"ZEUS_BSO_AUTO": "1"} else {}
    run = launch(PLAIN, tmp_path, **variables, **url)
    assert run.exit_status == 0
    assert "batch-size optimizer" not in run.errors


def previewed(
    script: str, folder: Path, monkeypatch: pytest.MonkeyPatch, url: str = "http://127.0.0.1:9", *, warm: bool = True
) -> Finding:
    """Return what `lightning-bso doctor --training` says about a script. It starts the script `warm`, or cold."""

    def started_warm(command: list[str], *, env: dict[str, str], **_: object) -> CompletedProcess[bytes]:
        run = launch(Path(command[1]).read_text(), folder, **env)
        return CompletedProcess(command, run.exit_status, run.output.encode(), run.errors.encode())

    if warm:
        monkeypatch.setattr("subprocess.run", started_warm)
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    monkeypatch.chdir(folder)  # where a script that trains after all saves its weights
    (folder / "train.py").write_text(script)
    return check_training([str(folder / "train.py")], url)


def test_doctor_says_what_would_be_derived_from_a_training_and_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = previewed(PLAIN, tmp_path, monkeypatch, warm=False)
    assert finding.level == "ok", finding
    assert "ZeusBSOCallback(job=JobSpec(job_id_prefix='Model-Data', batch_sizes=[2, 4, 8, 16, 32, 64]" in finding.text
    assert "monitor='val_loss', stop=False)" in finding.text


def test_doctor_says_which_job_a_training_goes_on_with_and_that_another_batch_size_keeps_out_of_it(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server:
        first = previewed(PLAIN, tmp_path, monkeypatch, server.url)
        assert (first.level, "it is a run of the new job Model-Data-" in first.text) == ("ok", True), first
        assert launch(PLAIN, tmp_path, **automatic(server.url)).exit_status == 0
        (job,) = BsoClient(server.url).list_jobs().jobs
        again = previewed(PLAIN, tmp_path, monkeypatch, server.url)
        assert again.level == "ok", again
        assert f"it is a run of the job {job.job_id}, trials so far 1: " in again.text
        other = previewed(OTHER, tmp_path, monkeypatch, server.url)
        assert trials_of_each_job(BsoClient(server.url)) == [1]
    assert other.level == "warning", other
    assert f"began with batch size {OWN_SIZE}. This launch has {OTHER_SIZE} and keeps it" in other.text


@pytest.mark.parametrize(
    ("change", "level", "text"),
    [
        (("Trainer(", "Trainer(fast_dev_run=True, "), "warning", "takes no part: this is a fast_dev_run"),
        (
            (
                "trainer = pl.Trainer(",
                "import lightning_bso\ntrainer = pl.Trainer(callbacks=lightning_bso.ZeusBSOCallback(), ",
            ),
            "warning",
            "takes no part: the Trainer has a ZeusBSOCallback of its own",
        ),
        (("self.batch_size", "self.size"), "problem", "go on without the optimizer: MisconfigurationException: "),
        (
            ("trainer.fit", "trainer.nothing"),
            "problem",
            'no fit asked the factory (see automatic). Its last line: "Attr',
        ),
    ],
)
def test_doctor_says_why_a_training_would_take_no_part(
    change: tuple[str, str], level: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert change[0] in PLAIN
    finding = previewed(PLAIN.replace(*change), tmp_path, monkeypatch)
    assert (finding.level, text in finding.text) == (level, True), finding
