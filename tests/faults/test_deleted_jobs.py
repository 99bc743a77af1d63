"""A job that is deleted while it is trained, and registered again at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from tests import specs
from tests.client.jobs import start_run
from tests.databases import dump
from tests.faults.checks import answered, assert_decided_well
from tests.faults.databases import others_are_long
from tests.servers import Server

TRAININGS = 4
DELETIONS = 5
EPOCHS = 12


@others_are_long
def test_runs_of_a_deleted_job_train_on_and_report_to_no_other_run_s_trial(
    database_url: str, serve: Callable[..., Server]
) -> None:
    fields = specs.job(max_epochs=EPOCHS + 1, policy="zeus")
    together = Barrier(TRAININGS + 1, timeout=30)

    def train(training: int) -> None:
        for number in range(DELETIONS):
            bso = start_run(server.url, job=fields, run_id=f"old-{training}-{number}")
            # Every second training reports while the job is deleted, and the others once it is registered again.
            for epochs in (EPOCHS, 0) if training % 2 else (0, EPOCHS):
                together.wait()
                for _ in range(epochs):
                    bso.on_evaluate(0.5)
            bso.end("over")
            together.wait()

    with serve(database_url) as server:
        calls = server.calls
        with ThreadPoolExecutor(TRAININGS) as pool:
            trainings = [pool.submit(train, number) for number in range(TRAININGS)]
            for deletion in range(DELETIONS):
                together.wait()
                assert calls.delete().status == 200
                calls.register(**fields)
                for number in range(2 * TRAININGS):  # with the numbers of the old runs' trials among theirs
                    calls.trial(run_id=f"new-{deletion}-{number}")
                together.wait()
                together.wait()
                new = [record for record in calls.records() if record["run_id"].startswith(f"new-{deletion}")]
                assert [(record["status"], record["energy"]) for record in new] == [("Dispatched", 0.0)] * len(new)
                assert len(new) == 2 * TRAININGS
            for training in trainings:
                training.result()
        assert dump(database_url)["reports"] == []
        assert answered(server)[400]
        assert_decided_well(server, "train")
        assert set(answered(server)) <= {200, 201, 400, 404}
