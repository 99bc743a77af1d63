"""Trainings through a proxy, below its path, and over its TLS with a certificate of a private authority."""

from pathlib import Path
from typing import Any

import pytest

from lightning_bso import BatchSizeOptimizer, BsoClient, ServerUnreachable, ZeusBSOCallback
from lightning_bso.console.cli import main
from tests.client.jobs import ScriptedMonitor, job, number_of_trials, registered
from tests.lightning.trainings import Module, fit
from tests.proxies.conftest import Site
from tests.proxies.running import Authority, nginx

RECURRENCES = 8
NOT_TRUSTED = r"certificate of https://localhost:\d+/bso is not trusted \(.*\); .* set \$REQUESTS_CA_BUNDLE to the file"


def test_a_recurring_training_finds_its_batch_size_through_the_proxy(trusted: Site) -> None:
    fields = job()
    for _ in range(RECURRENCES):
        bso = BatchSizeOptimizer(ScriptedMonitor(), trusted.url, token=trusted.token, job=fields)
        bso.get_batch_size()
        bso.on_train_begin()
        for metric in (0.5, 1.0):
            bso.on_evaluate(metric)
    client = BsoClient(trusted.url, trusted.token)
    assert number_of_trials(client, fields["job_id_prefix"]) == RECURRENCES
    (listing,) = client.list_jobs(contains=fields["job_id_prefix"]).jobs
    assert sum(size.converged for size in client.describe(listing.job_id).batch_sizes) == RECURRENCES


@pytest.mark.parametrize("job_id", ["team/vision", "//two//slashes/", "a/../b", "per%2Fcent", "a?b#c", "späße & more"])
def test_a_jobs_id_arrives_as_it_was_written(trusted: Site, job_id: str) -> None:
    client = BsoClient(trusted.url, trusted.token)
    client.register(registered(job_id=job_id, job_id_prefix=job_id))
    assert client.describe(job_id).spec.job_id == job_id
    assert client.list_trials(job_id).total == 0


def test_a_certificate_of_an_unknown_authority_is_named_with_its_cure(untrusted: Site) -> None:
    with pytest.raises(ServerUnreachable, match=NOT_TRUSTED) as error:
        BsoClient(untrusted.url, untrusted.token).list_jobs()
    assert not error.value.transient


def test_a_callback_says_the_same(untrusted: Site) -> None:
    callback = ZeusBSOCallback(untrusted.url, job(), token=untrusted.token, energy_monitor=ScriptedMonitor())
    with pytest.raises(ServerUnreachable, match=NOT_TRUSTED):
        fit(callback, Module())


def test_the_doctor_says_the_same(untrusted: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--server-url", untrusted.url, "--token", untrusted.token]) == 1
    (problem,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem")]
    assert "set $REQUESTS_CA_BUNDLE to the file" in problem


@pytest.mark.usefixtures("trusted")
def test_the_doctor_finds_no_fault_with_a_trusted_one(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--server-url", site.url, "--token", site.token]) == 0
    assert f"{site.url} answers" in capsys.readouterr().out


def test_a_missing_file_of_authorities_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such.pem")
    with pytest.raises(ServerUnreachable, match=r"/no/such\.pem; check \$REQUESTS_CA_BUNDLE"):
        BsoClient(site.url, site.token).list_jobs()


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [({"valid": False}, "certificate has expired"), ({"name": "other.example"}, "Hostname mismatch")],
    ids=["expired", "of another host"],
)
def test_another_authority_is_no_cure_for_an_expired_certificate_or_another_hosts(
    certificate: dict[str, Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
    with (
        nginx("127.0.0.1:1", tmp_path, authority, **certificate) as url,
        pytest.raises(ServerUnreachable, match=rf"is not trusted \({reason}") as error,
    ):
        BsoClient(url).list_jobs()
    assert "REQUESTS_CA_BUNDLE" not in str(error.value)
