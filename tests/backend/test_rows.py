"""Rows that are stored without a session."""

import pytest
from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import IntegrityError

from backend.database import batches, rows
from backend.database.models import Secret
from tests.databases import connected

_VALUE = select(Secret.value).where(Secret.name == bindparam("secret"))
_SET = update(Secret).where(Secret.name == bindparam("secret")).values(value=bindparam("new"))


def test_a_change_of_a_row_that_is_gone_is_an_error(database_url: str) -> None:
    secret = rows.new(Secret, name="name", value="old")
    with connected(database_url) as connection:
        rows.save(connection, secret)
        connection.exec_driver_sql("DELETE FROM secrets")
        rows.save(connection, secret)
        secret.value = "new"
        with pytest.raises(LookupError, match="no row of Secret"):
            rows.save(connection, secret)


def test_a_batch_says_how_many_rows_each_change_has_found_and_what_the_query_has(database_url: str) -> None:
    with connected(database_url) as connection:
        rows.save(connection, rows.new(Secret, name="a", value="old"), rows.new(Secret, name="b", value="old"))
        counts, found = batches.execute(
            connection,
            (_SET, {"secret": "a", "new": "100 %s; --'"}),
            (_SET, {"secret": "none", "new": "new"}),
            (_SET, {"secret": "b", "new": "old"}),  # changes nothing, but finds a row
            (_VALUE, {"secret": "a"}),
        )
        assert list(counts)[:3] == [1, 0, 1]
        assert [tuple(row) for row in found] == [("100 %s; --'",)]


def test_a_statement_that_fails_in_a_batch_ends_it_and_leaves_the_connection_usable(database_url: str) -> None:
    with connected(database_url) as connection:
        rows.save(connection, rows.new(Secret, name="there", value="old"))
        with pytest.raises(IntegrityError), connection.begin_nested():
            rows.save(connection, *(rows.new(Secret, name=name, value="new") for name in ("first", "there", "last")))
        assert connection.scalars(select(Secret.name)).all() == ["there"]
