"""The database's clock is set forward and back by an hour. Leases and lost runs depend on it, results do not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.databases import MariaDB, connected
from tests.faults.checks import assert_decided_well, assert_kept
from tests.faults.load import Load
from tests.servers import Server

HOUR_S = 3600
LEASE_S = 1800


class Clock:
    """The clock of a MariaDB."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    def set(self, ahead_s: int) -> None:
        """Set the clock that far ahead of the true time, or back if the number is negative."""
        following = self._file.with_suffix(".new")
        following.write_text(f"{ahead_s:+d}")
        following.replace(self._file)  # at once, because the database reads it at any time

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables with which a process reads this clock."""
        command = shutil.which("faketime")
        assert command is not None, "install Debian's package faketime"
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


def test_a_clock_that_is_set_forward_and_back_under_load_loses_nothing(
    own_mariadb: Callable[..., MariaDB], serve: Callable[..., Server], clock: Clock
) -> None:
    url = own_mariadb(**clock.variables).database()
    with serve(url, ZEUS_BSO_LEASE_S=f"{LEASE_S}") as server:
        with Load(server.url) as load:
            for ahead_s in (HOUR_S, 0, -HOUR_S, 0, HOUR_S):
                clock.set(ahead_s)
                load.wait_for(10)
        with connected(url) as connection:
            late = "SELECT COUNT(*) FROM reports WHERE expired_revision IS NOT NULL"
            assert connection.exec_driver_sql(late).scalar_one() > 0  # the clock does matter
        assert_kept(load, server)


def test_a_run_that_began_before_the_clock_was_set_back_is_lost_when_its_lease_expires(
    own_mariadb: Callable[..., MariaDB], serve: Callable[..., Server], clock: Clock
) -> None:
    clock.set(HOUR_S)
    url = own_mariadb(**clock.variables).database()
    with serve(url, ZEUS_BSO_LEASE_S=f"{LEASE_S}") as server:
        calls = server.calls
        calls.register()
        gone = calls.trial(run_id="gone")
        clock.set(0)
        calls.converge(calls.trial(run_id="meanwhile"))
        assert calls.record(gone)["status"] == "Dispatched"
        clock.set(HOUR_S + LEASE_S + 1)
        following = calls.trial(run_id="following")
        assert calls.record(gone)["outcome_code"] == "lost"
        assert following["batch_size"] == gone["batch_size"]
        calls.converge(following)
        assert_decided_well(server, "train")
