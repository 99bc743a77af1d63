"""The client and servers that do not answer, or that send answers outside the protocol."""

import gzip
import time

import pytest

from lightning_bso import BsoClient, ServerRefused, ServerUnreachable, transport
from lightning_bso.wire import ReportRequest
from tests.client.jobs import registered
from tests.client.scripted import JOB_PAGE, Reply, ScriptedServer, in_turn
from tests.databases import free_port

GOING_ON = Reply(200, {"stop_train": False, "converged": False, "message": "go on"})
REPORT = ReportRequest(
    job_id="job", batch_size=16, trial_number=1, time=1, energy=1, metric=0.5, current_epoch=1, report_number=1
)


@pytest.fixture
def read_timeout(monkeypatch: pytest.MonkeyPatch) -> float:
    """A read timeout that a test can wait for."""
    monkeypatch.setattr(transport, "READ_TIMEOUT_S", 0.3)
    return transport.READ_TIMEOUT_S


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_that_is_being_restarted_is_asked_again(scripted: ScriptedServer, status: int) -> None:
    scripted.script = in_turn(Reply(status), Reply(status), JOB_PAGE)
    assert BsoClient(scripted.url).list_jobs().total == 0
    assert len(scripted.requests) == 3


def test_a_report_is_tried_once_more(scripted: ScriptedServer) -> None:
    scripted.script = in_turn(Reply(503), GOING_ON)
    assert BsoClient(scripted.url).report(REPORT).message == "go on"
    assert [request.body for request in scripted.requests] == [REPORT.model_dump(mode="json")] * 2


def test_a_server_that_stays_unavailable_is_unreachable_with_its_own_words(scripted: ScriptedServer) -> None:
    scripted.script = in_turn(Reply(503, {"message": "the database does not answer"}))
    with pytest.raises(ServerUnreachable, match=r"the database does not answer.*HTTP 503"):
        BsoClient(scripted.url).report(REPORT)
    assert len(scripted.requests) == 2


def test_a_fault_of_the_server_is_unreachable_and_not_repeated(scripted: ScriptedServer) -> None:
    scripted.script = in_turn(Reply(500, b"<h1>Internal Server Error</h1>"))
    with pytest.raises(ServerUnreachable, match=r"Internal Server Error.*HTTP 500"):
        BsoClient(scripted.url).list_jobs()
    assert len(scripted.requests) == 1


def test_a_report_does_not_wait_for_as_long_as_a_server_would_like(scripted: ScriptedServer) -> None:
    scripted.script = in_turn(Reply(503, headers={"Retry-After": "4"}))
    began = time.monotonic()
    with pytest.raises(ServerUnreachable):
        BsoClient(scripted.url).report(REPORT)
    assert time.monotonic() - began < 3


def test_a_server_that_hangs_holds_a_report_up_for_at_most_twice_the_read_timeout(
    scripted: ScriptedServer, read_timeout: float
) -> None:
    scripted.script = scripted.hang
    began = time.monotonic()
    with pytest.raises(ServerUnreachable, match=r"timed out.*is the server running"):
        BsoClient(scripted.url).report(REPORT)
    assert read_timeout <= time.monotonic() - began < 2 * read_timeout + 1


def test_a_hurried_call_that_a_server_leaves_unanswered_is_given_up_sooner(scripted: ScriptedServer) -> None:
    scripted.script = scripted.hang
    with transport.hurried(0.3), pytest.raises(ServerUnreachable, match=r"timed out after 0\.3 s"):
        BsoClient(scripted.url).register(registered())
    assert len(scripted.requests) == 1


def test_a_hurried_call_is_repeated_while_there_is_time(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.script = in_turn(Reply(503), Reply(503), JOB_PAGE)
    with transport.hurried(60):
        assert BsoClient(scripted.url).list_jobs().total == 0
    assert len(scripted.requests) == 3
    scripted.script = in_turn(Reply(503, {"message": "the database is locked"}))
    monkeypatch.setattr(transport, "BACKOFF_S", 120.0)
    with transport.hurried(60), pytest.raises(ServerUnreachable, match="the database is locked"):
        BsoClient(scripted.url).list_jobs()
    assert len(scripted.requests) == 4


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b" " * 40, pause_s=0.1),
        Reply(200, GOING_ON.body, headers={f"X-Header-{number}": "drip" for number in range(40)}, pause_s=0.1),
    ],
    ids=["its body", "its headers"],
)
def test_a_server_that_drips_holds_a_report_up_for_at_most_twice_the_read_timeout(
    scripted: ScriptedServer, read_timeout: float, reply: Reply
) -> None:
    # A socket timeout does not help: it restarts at every byte.
    scripted.script = in_turn(reply)
    began = time.monotonic()
    with pytest.raises(ServerUnreachable, match="timed out"):
        BsoClient(scripted.url).report(REPORT)
    assert time.monotonic() - began < 2 * read_timeout + 1


def test_after_a_timeout_the_next_call_uses_a_new_session(scripted: ScriptedServer, read_timeout: float) -> None:
    scripted.script = scripted.hang
    client = BsoClient(scripted.url, token="bso_token")
    with pytest.raises(ServerUnreachable, match="timed out"):
        client.report(REPORT)
    scripted.script = in_turn(GOING_ON)
    assert client.report(REPORT).message == "go on"
    assert scripted.requests[-1].headers["Authorization"] == "Bearer bso_token"


def test_a_report_carries_the_cookie_that_the_last_answer_has_set(scripted: ScriptedServer) -> None:
    answers = [JOB_PAGE, GOING_ON, GOING_ON]
    scripted.script = in_turn(
        *(Reply(200, answer.body, {"Set-Cookie": f"worker={number}"}) for number, answer in enumerate(answers))
    )
    client = BsoClient(scripted.url)
    client.list_jobs()
    client.report(REPORT)
    client.report(REPORT)
    assert [request.headers.get("Cookie") for request in scripted.requests] == [None, "worker=0", "worker=1"]


def test_a_call_succeeds_where_no_further_thread_can_start(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    scripted.script = in_turn(GOING_ON)
    with monkeypatch.context() as patched:
        patched.setattr(transport, "start_new_thread", fail)
        assert BsoClient(scripted.url).report(REPORT).message == "go on"


def test_a_refused_connection_is_unreachable_and_says_what_to_look_at() -> None:
    port = free_port()
    with pytest.raises(ServerUnreachable, match=r"(?i)connection refused.*is the server running") as error:
        BsoClient(f"http://127.0.0.1:{port}").list_jobs()
    assert f"127.0.0.1:{port}" in str(error.value)


@pytest.mark.parametrize("address", ["http://bso:s3cret@127.0.0.1:{port}", "http://bso:s3cret@127.0.0.1:{port}/path"])
def test_no_credentials_are_in_an_error(address: str) -> None:
    with pytest.raises(ServerUnreachable) as error:
        BsoClient(address.format(port=free_port())).list_jobs()
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("body", [b"", b"<html>a wiki</html>", b'{"total": "many"}', b"[]", b"null"])
def test_an_answer_that_is_not_the_protocols_is_unreachable(scripted: ScriptedServer, body: bytes) -> None:
    scripted.script = in_turn(Reply(200, body))
    with pytest.raises(ServerUnreachable, match="is that the address of a batch-size-optimizer server"):
        BsoClient(scripted.url).list_jobs()


def test_an_answer_of_a_later_server_may_have_more_fields(scripted: ScriptedServer) -> None:
    scripted.script = in_turn(Reply(200, GOING_ON.body | {"advice": "rest"}))
    assert not BsoClient(scripted.url).report(REPORT).stop_train


def test_an_answer_may_be_compressed_on_the_way(scripted: ScriptedServer) -> None:
    scripted.script = in_turn(Reply(200, gzip.compress(JOB_PAGE.content), headers={"Content-Encoding": "gzip"}))
    assert BsoClient(scripted.url).list_jobs().total == 0


def test_an_answer_that_breaks_off_is_asked_for_again(scripted: ScriptedServer) -> None:
    broken = Reply(200, JOB_PAGE.content[:9], headers={"Content-Length": "99", "Connection": "close"})
    scripted.script = in_turn(broken, JOB_PAGE)
    assert BsoClient(scripted.url).list_jobs().total == 0
    assert len(scripted.requests) == 2


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_but_named(scripted: ScriptedServer, status: int) -> None:
    scripted.script = in_turn(Reply(status, headers={"Location": "https://bso.example/jobs"}))
    with pytest.raises(ServerUnreachable, match=r"redirects to https://bso\.example/jobs"):
        BsoClient(scripted.url).register(registered())
    assert len(scripted.requests) == 1


def test_a_refusal_has_its_status_and_every_fault(scripted: ScriptedServer) -> None:
    faults = [
        {"loc": ["max_power"], "msg": "Input should be greater than 0", "type": "greater_than"},
        {"loc": ["batch_sizes", 2], "msg": "Input should be a number", "type": "number_type"},
    ]
    scripted.script = in_turn(Reply(422, {"message": "2 faults", "detail": faults}))
    with pytest.raises(ServerRefused, match=r"2 faults.*422") as refusal:
        BsoClient(scripted.url).register(registered())
    assert refusal.value.status == 422
    assert refusal.value.answer.detail is not None
    assert [fault.loc for fault in refusal.value.answer.detail] == [["max_power"], ["batch_sizes", 2]]
    assert [(call.method, call.path) for call in scripted.requests] == [("POST", "/jobs"), ("GET", "/openapi.json")]


def test_a_refusal_by_something_in_between_is_quoted_and_not_taken_for_the_servers(scripted: ScriptedServer) -> None:
    scripted.script = in_turn(Reply(403, b"Blocked by the proxy"))
    with pytest.raises(ServerUnreachable, match="Blocked by the proxy"):
        BsoClient(scripted.url).list_jobs()
