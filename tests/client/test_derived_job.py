"""A job that no user has described: the server knows its spec after the first launch."""

from uuid import uuid4

import pytest

from lightning_bso import BatchSizeOptimizer, BsoClient, JobSpec
from lightning_bso.identity import DerivedJob
from tests.client.jobs import ScriptedMonitor, job
from tests.databases import free_port
from tests.servers import Server


def spec(prefix: str, *sizes: int) -> JobSpec:
    return JobSpec.model_validate(job(job_id_prefix=prefix, batch_sizes=list(sizes), default_batch_size=sizes[0]))


def launched(url: str, derived: DerivedJob, **options: bool) -> BatchSizeOptimizer:
    bso = BatchSizeOptimizer(ScriptedMonitor(), url, derived, **options)
    bso.get_batch_size()
    return bso


def test_the_next_launch_takes_the_spec_that_the_server_knows(server: Server, client: BsoClient) -> None:
    prefix = f"derived-{uuid4().hex}"
    launched(server.url, DerivedJob(prefix, "a training", lambda: spec(prefix, 8, 16)))
    later = launched(server.url, DerivedJob(prefix, "a training", lambda: pytest.fail("it is described again")))
    (listing,) = client.list_jobs(contains=prefix).jobs
    assert (later.job.batch_sizes, listing.trials) == ([8, 16], 2)


def test_another_training_is_another_job(server: Server, client: BsoClient) -> None:
    prefix = f"derived-{uuid4().hex}"
    for identity in ("a training", "another"):
        launched(server.url, DerivedJob(prefix, identity, lambda: spec(prefix, 8, 16)))
    assert client.list_jobs(contains=prefix).total == 2


def test_of_two_first_launches_at_once_the_second_takes_the_job_of_the_first(server: Server, client: BsoClient) -> None:
    prefix = f"derived-{uuid4().hex}"
    runs = []

    def derive_late() -> JobSpec:
        runs.append(launched(server.url, DerivedJob(prefix, "a training", lambda: spec(prefix, 8, 16))))
        return spec(prefix, 4, 32)

    runs.append(launched(server.url, DerivedJob(prefix, "a training", derive_late)))
    assert [run.job.batch_sizes for run in runs] == [[8, 16], [8, 16]]
    assert client.list_jobs(contains=prefix).jobs[0].trials == 2


def test_without_a_server_the_fallback_is_the_derived_default() -> None:
    derived = DerivedJob("derived", "a training", lambda: spec("derived", 8, 16))
    assert launched(f"http://127.0.0.1:{free_port()}", derived, fallback_to_default=True).batch_size == 8


def test_the_job_is_unknown_before_the_batch_size() -> None:
    bso = BatchSizeOptimizer(ScriptedMonitor(), "http://127.0.0.1:1", DerivedJob("a", "b", lambda: spec("a", 1)))
    with pytest.raises(RuntimeError, match=r"call get_batch_size\(\) first"):
        _ = bso.job
