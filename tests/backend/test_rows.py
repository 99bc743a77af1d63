"""Rows that are stored without a session."""

import pytest

from backend.database import rows
from backend.database.models import Secret
from tests.databases import connected


def test_a_change_of_a_row_that_is_gone_is_an_error(database_url: str) -> None:
    secret = rows.new(Secret, name="name", value="old")
    with connected(database_url) as connection:
        rows.save(connection, secret)
        connection.exec_driver_sql("DELETE FROM secrets")
        rows.save(connection, secret)
        secret.value = "new"
        with pytest.raises(LookupError, match="no row of Secret"):
            rows.save(connection, secret)
