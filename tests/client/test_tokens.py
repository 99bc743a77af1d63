"""A run on a server that requires an access token."""

import pytest

from lightning_bso import BatchSizeOptimizer, BsoClient, ServerRefused
from tests.client.jobs import ScriptedMonitor, job
from tests.servers import Server


def test_a_run_with_the_token_is_reported_and_one_without_is_refused(
    guarded: tuple[Server, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, token = guarded
    fields = job()
    for wrong_token in (None, "another"):
        with pytest.raises(ServerRefused) as refusal:
            BatchSizeOptimizer(ScriptedMonitor(), server.url, fields, token=wrong_token).get_batch_size()
        assert refusal.value.status == 401
        assert token not in str(refusal.value)
    address_with_token = f"http://bso:{token}@127.0.0.1:{server.port}"
    monkeypatch.setenv("ZEUS_BSO_TOKEN", token)
    for url, token_argument in ((server.url, None), (server.url, token)):
        bso = BatchSizeOptimizer(ScriptedMonitor(), url, fields, token=token_argument)
        bso.get_batch_size()
        bso.on_train_begin()
        bso.on_evaluate(1.0)
        assert bso.training_finished
    monkeypatch.delenv("ZEUS_BSO_TOKEN")
    third = BatchSizeOptimizer(ScriptedMonitor(), address_with_token, fields)
    third.get_batch_size()
    assert third.trial is not None
    assert third.trial.trial_number == 3
    assert BsoClient(server.url, token).describe(third.trial.job_id).trials == 3


def test_a_token_with_a_line_s_end_is_refused_at_once_and_not_shown() -> None:
    with pytest.raises(ValueError, match="such as the line's end of a file; check ZEUS_BSO_TOKEN") as refusal:
        BsoClient("http://127.0.0.1:1", "bso_secret\n")
    assert "secret" not in str(refusal.value)
