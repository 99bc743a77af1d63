"""Several servers over one database: one is paused, one run reports through two, reports come late or out of order."""

import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier

import pytest

from tests.calls import Answer
from tests.databases import connected, dump
from tests.faults.checks import answered, assert_decided_well, assert_kept
from tests.faults.databases import others_are_long
from tests.faults.load import Load
from tests.servers import Server

Serve = Callable[..., Server]
REPORTS = 20


@pytest.fixture
def pair(database_url: str, serve: Serve) -> "Callable[..., list[Server]]":
    """A function that starts two servers over one database."""
    with ExitStack() as stack:
        yield lambda **variables: [stack.enter_context(serve(database_url, **variables)) for _ in range(2)]


@others_are_long
@pytest.mark.parametrize("paused_s", [2.0, pytest.param(15.0, marks=pytest.mark.long)])
def test_a_replica_that_is_paused_for_longer_than_the_lease_loses_nothing(
    pair: "Callable[..., list[Server]]", paused_s: float
) -> None:
    servers = pair(ZEUS_BSO_LEASE_S="1")
    with Load(*(server.url for server in servers)) as load:
        assert servers[0].process is not None
        os.killpg(servers[0].process.pid, signal.SIGSTOP)
        time.sleep(paused_s)
        os.killpg(servers[0].process.pid, signal.SIGCONT)
        load.wait_for(20)
    assert_kept(load, *servers)


@others_are_long
def test_reports_that_always_come_after_the_lease_are_kept(pair: "Callable[..., list[Server]]") -> None:
    servers = pair(ZEUS_BSO_LEASE_S="0.001")
    with Load(*(server.url for server in servers)) as load:
        load.wait_for(60)
    with connected(servers[0].database_url) as connection:
        late = "SELECT COUNT(*) FROM reports WHERE expired_revision IS NOT NULL"
        assert connection.exec_driver_sql(late).scalar_one() > 10
    assert_kept(load, *servers)


@others_are_long
def test_of_two_places_that_report_one_run_differently_each_report_comes_from_one(
    pair: "Callable[..., list[Server]]",
) -> None:
    servers = pair()
    servers[0].calls.register(max_epochs=REPORTS + 1)
    trial = servers[0].calls.trial()
    together = Barrier(2)

    def report(place: int) -> list[Answer]:
        answers = []
        for number in range(1, REPORTS + 1):
            together.wait()
            totals = {"energy": 10.0 * number + place, "time": float(number), "current_epoch": number}
            answers.append(servers[place].calls.report(trial, report_number=number, **totals))
        return answers

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(report, range(2)))
    acknowledged = []
    for number, of_number in enumerate(zip(*answers, strict=True), start=1):
        assert sorted(answer.status for answer in of_number) == [200, 409]
        place = [answer.status for answer in of_number].index(200)
        acknowledged.append((number, 10.0 * number + place))
    stored = sorted((row[1], row[4]) for row in dump(servers[0].database_url)["reports"])
    assert stored == acknowledged
    assert_decided_well(servers[0], "train")


@others_are_long
def test_reports_that_arrive_out_of_order_and_twice_are_stored_as_they_were_acknowledged(
    pair: "Callable[..., list[Server]]",
) -> None:
    servers = pair()
    servers[0].calls.register(max_epochs=REPORTS + 1)
    trial = servers[0].calls.trial()
    arriving = [number for number in range(1, REPORTS + 1) for _ in range(2)]
    random.Random(1).shuffle(arriving)

    def report(number: int) -> Answer:
        totals = {"energy": 10.0 * number, "time": float(number), "current_epoch": number}
        return servers[number % 2].calls.report(trial, report_number=number, **totals)

    with ThreadPoolExecutor(4) as pool:
        answers = list(zip(arriving, pool.map(report, arriving), strict=True))
    assert {answer.status for _, answer in answers} == {200, 409}
    acknowledged = {number: answer.text for number, answer in answers if answer.status == 200}
    assert sorted(row[1] for row in dump(servers[0].database_url)["reports"]) == sorted(acknowledged)
    assert {number: report(number).text for number in acknowledged} == acknowledged
    assert_decided_well(servers[0], "train")
    assert not any(status >= 500 for server in servers for status in answered(server))
