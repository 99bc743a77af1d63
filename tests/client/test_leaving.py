"""The end of a run: by the end of its block, by an error, by Ctrl-C. Also the pickling of errors."""

import pickle

import pytest

from lightning_bso import (
    BatchSizeOptimizer,
    BsoClient,
    EnergyUnavailable,
    ServerRefused,
    ServerUnreachable,
    ZeusBSOTrainFailError,
)
from lightning_bso.wire import MAX_REASON_LENGTH, ErrorAnswer
from tests.client.jobs import ScriptedMonitor, job, only_trial, start_run
from tests.servers import Server


@pytest.fixture
def run(server: Server) -> BatchSizeOptimizer:
    """A run that has started to train."""
    return start_run(server.url)


def stored(client: BsoClient, run: BatchSizeOptimizer) -> tuple[str, str | None]:
    """Return the status and outcome of the run's trial."""
    trial = only_trial(client, run._job.job_id_prefix)
    return trial.status, trial.outcome


def test_an_error_ends_the_trial_with_its_reason(run: BatchSizeOptimizer, client: BsoClient) -> None:
    with pytest.raises(OSError, match="disk"), run:
        raise OSError("the disk is full")
    assert stored(client, run) == ("Failed", "OSError: the disk is full")


def test_a_lack_of_memory_counts_against_the_batch_size_only_once_the_training_has_begun(
    server: Server, client: BsoClient
) -> None:
    for has_begun, code in ((False, "ended"), (True, "out_of_memory")):
        fields = job()
        with pytest.raises(MemoryError), BatchSizeOptimizer(ScriptedMonitor(), server.url, fields) as bso:
            bso.get_batch_size()
            if has_begun:
                bso.on_train_begin()
            raise MemoryError
        assert only_trial(client, fields["job_id_prefix"]).outcome_code == code


def test_leaving_without_a_verdict_ends_the_trial(run: BatchSizeOptimizer, client: BsoClient) -> None:
    with run:
        run.on_evaluate(0.5)
    assert stored(client, run) == ("Failed", "the with block ended without a verdict")


def test_ctrl_c_leaves_the_trial_open(run: BatchSizeOptimizer, client: BsoClient) -> None:
    with pytest.raises(KeyboardInterrupt), run:
        raise KeyboardInterrupt
    assert stored(client, run) == ("Dispatched", None)


def test_a_late_error_of_a_broken_attempt_does_not_end_the_resumed_run(server: Server, client: BsoClient) -> None:
    fields = job()
    broken = start_run(server.url, job=fields, run_id="run")
    broken.on_evaluate(0.5)
    resumed = start_run(server.url, job=fields, run_id="run")
    resumed.on_evaluate(0.5)
    broken.abandon(RuntimeError("NCCL timeout"))
    resumed.on_evaluate(1.0)
    assert only_trial(client, fields["job_id_prefix"]).converged


def test_leaving_after_the_verdict_changes_nothing(run: BatchSizeOptimizer, client: BsoClient) -> None:
    with run:
        run.on_evaluate(1.0)
    status, outcome = stored(client, run)
    assert status == "Succeeded"
    assert "reached the target" in (outcome or "")


def test_a_failed_verdict_is_what_is_on_record(server: Server, client: BsoClient) -> None:
    fields = job(max_epochs=1)
    with pytest.raises(ZeusBSOTrainFailError), start_run(server.url, job=fields) as run:
        run.on_evaluate(0.5)
    assert only_trial(client, fields["job_id_prefix"]).status == "Succeeded"


def test_leaving_before_a_batch_size_was_asked_for_is_nothing(server: Server) -> None:
    with BatchSizeOptimizer(ScriptedMonitor(), server.url, job()) as run:
        assert run.trial is None


def test_a_reason_may_be_long(run: BatchSizeOptimizer, client: BsoClient) -> None:
    run.end("x" * 10_000)
    assert stored(client, run) == ("Failed", "x" * MAX_REASON_LENGTH)


def test_an_error_with_a_name_that_is_no_text_is_the_one_that_is_raised(
    run: BatchSizeOptimizer, client: BsoClient
) -> None:
    name = b"data-\xff.bin".decode(errors="surrogateescape")  # as Python decodes the name of such a file
    with pytest.raises(FileNotFoundError), run:
        raise FileNotFoundError(name)
    assert stored(client, run)[0] == "Failed"


@pytest.mark.parametrize(
    "error",
    [
        ZeusBSOTrainFailError("job", 3, 64, "too dear"),
        ServerUnreachable("no answer"),
        ServerRefused(409, ErrorAnswer(message="no batch size is left")),
        EnergyUnavailable("no counter"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_the_way_to_another_process(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
