"""On which databases a fault is tried."""

import pytest

sqlite_is_long = pytest.mark.parametrize(
    "database_url", ["mariadb", pytest.param("sqlite", marks=pytest.mark.long)], indirect=True
)
"""For a test with the fixture `database_url` whose fault hardly depends on the database."""
