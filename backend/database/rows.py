"""Load and store single rows without the ORM's session. A row is an object of its class in `models`.

A loaded row remembers what is stored of it, and `save` writes the columns that have changed since. A session does this
too, but takes several times as long, and most calls of a run change two rows (docs/decisions.md).
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache, lru_cache
from operator import itemgetter
from typing import Any, Final, TypeVar, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Insert,
    Table,
    Text,
    TypeDecorator,
    Update,
    bindparam,
    func,
    insert,
    inspect,
    update,
)

from backend.database.extensions import Base

Row = TypeVar("Row", bound=Base)

_STORED: Final = "_stored"
"""Attribute of a row with its stored values, in the order of `_names`."""


@cache
def columns(model: type[Base]) -> list[ColumnElement[Any]]:
    """Return the columns that `load` expects, in their order."""
    return [attribute.columns[0] for attribute in inspect(model).column_attrs]


def is_packed(connection: Connection) -> bool:
    """Whether `select_parts` should pack each row into one column, a JSON array.

    PyMySQL parses the description of each column in Python, which is most of the time of a call's largest query. MySQL
    and MariaDB write numbers into JSON as exactly as into other results. SQLite does not, and would hardly gain.
    """
    return connection.dialect.name in ("mysql", "mariadb")


def select_parts(models: Sequence[type[Base]], *, packed: bool) -> list[ColumnElement[Any]]:
    """Return what a query selects so that `load_parts` can read rows of several classes from its results."""
    if packed:
        return [func.json_array(*columns(model), type_=_Packed(model)) for model in models]
    return [column for model in models for column in columns(model)]


def load_parts(models: Sequence[type[Base]], values: Sequence[Any], *, packed: bool) -> list[Any]:
    """Return the rows whose columns `select_parts` has selected. None: an outer join has found no row."""
    parts, rest = [], values
    for model in models:
        width = len(columns(model))
        of_row, rest = (rest[0], rest[1:]) if packed else (rest[:width], rest[width:])
        parts.append(None if of_row[0] is None else load(model, of_row))
    return parts


def load(model: type[Row], values: Sequence[Any]) -> Row:
    """Return a row with values that were selected by `columns`."""
    row = model()
    # Not attribute by attribute: their events take ten times as long, and only a session needs them.
    vars(row).update(zip(_names(model), values, strict=True))
    setattr(row, _STORED, tuple(values))
    return row


def add(connection: Connection, row: Base) -> None:
    """Store a new row, and give it its key. An attribute that is not set gets its default in the database only."""
    model, set_before = type(row), vars(row)
    values = {key: set_before[name] for name, key in _keys(model).items() if name in set_before}
    inserted = connection.execute(_insert(model), values)
    for column, value in zip(inspect(model).primary_key, inserted.inserted_primary_key or (), strict=True):
        setattr(row, column.name, value)
    for name in _names(model):
        set_before.setdefault(name, None)
    setattr(row, _STORED, _values(model)(set_before))


def save(connection: Connection, *rows: Base | None) -> None:
    """Store what has changed of some loaded or added rows. None stands for a row that there is not.

    Raises:
        LookupError: another transaction has deleted a row. A locked job protects its rows from this.
    """
    for row in rows:
        if row is None:
            continue
        model = type(row)
        before, values = getattr(row, _STORED), _values(model)(vars(row))
        if values == before:
            continue
        changed = {
            f"new_{name}": new for name, new, old in zip(_names(model), values, before, strict=True) if new != old
        }
        key = {f"old_{column.name}": getattr(row, column.name) for column in inspect(model).primary_key}
        if connection.execute(_update(model, tuple(changed)), key | changed).rowcount != 1:
            raise LookupError(f"no row of {model.__name__} has the key {key}")
        setattr(row, _STORED, values)


class _Packed(TypeDecorator[list[Any]]):
    """The values of a row, in a JSON array."""

    impl = Text
    cache_ok = True

    def __init__(self, model: type[Base]) -> None:
        super().__init__()
        self.model = model

    def process_result_value(self, value: Any, _dialect: Dialect) -> list[Any]:
        """Read the array. JSON has no times, and may write 1.0 as 1 and true as 1."""
        return [
            item if item is None or convert is None else convert(item)
            for item, convert in zip(json.loads(value), _converters(self.model), strict=True)
        ]


@cache
def _converters(model: type[Base]) -> list[Callable[[Any], Any] | None]:
    of_type: dict[type, Callable[[Any], Any]] = {
        float: float,
        bool: bool,
        datetime: datetime.fromisoformat,
    }
    return [of_type.get(column.type.python_type) for column in columns(model)]


@cache
def _keys(model: type[Base]) -> dict[str, str]:
    """Return the name of each attribute's column."""
    return {attribute.key: attribute.columns[0].key for attribute in inspect(model).column_attrs}


@cache
def _names(model: type[Base]) -> tuple[str, ...]:
    return tuple(_keys(model))


@cache
def _values(model: type[Base]) -> "itemgetter[tuple[Any, ...]]":
    return itemgetter(*_names(model))


@cache
def _insert(model: type[Base]) -> Insert:
    return insert(cast(Table, model.__table__))


@lru_cache
def _update(model: type[Base], parameters: tuple[str, ...]) -> Update:
    mapper = inspect(model)
    is_row = [column == bindparam(f"old_{column.name}") for column in mapper.primary_key]
    new: dict[Any, Any] = {mapper.columns[name.removeprefix("new_")]: bindparam(name) for name in parameters}
    return update(cast(Table, model.__table__)).where(*is_row).values(new)
