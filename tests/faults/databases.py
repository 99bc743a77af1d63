"""On which databases a fault is tried."""

import pytest

others_are_long = pytest.mark.parametrize(
    "database_url",
    ["mariadb", *(pytest.param(system, marks=pytest.mark.long) for system in ("sqlite", "postgresql"))],
    indirect=True,
)
"""For a test with the fixture `database_url` whose fault hardly depends on the database."""
