"""Load and store single rows without the ORM's session.

A row has the attributes of its class in `models`, but is a plain object: an instance of the class would tell a session
of each change. A row remembers what is stored of it, and `save` writes what has changed since. A session does this too,
but takes several times as long, and most calls of a run change two rows (docs/decisions.md).
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any, Final, TypeVar, cast

from sqlalchemy import ColumnElement, Connection, Insert, Table, Update, bindparam, func, insert, inspect, update

from . import batches
from .batches import Statement
from .extensions import Base

Row = TypeVar("Row", bound=Base)

_STORED: Final = "_stored"
"""Attribute of a row with its stored values, in the order of `_names`. A new row has none."""
_OLD: Final = "old_"
"""Begins the names of parameters that hold a row's key."""


@cache
def columns(model: type[Base]) -> list[ColumnElement[Any]]:
    """Return the columns that `load` expects, in their order."""
    return [attribute.columns[0] for attribute in inspect(model).column_attrs]


def is_packed(connection: Connection) -> bool:
    """Whether `select_parts` should pack all that it selects into one column, a JSON array.

    PyMySQL parses the description of each column in Python, which is most of the time of a call's largest query. MySQL
    and MariaDB write numbers into JSON as exactly as into other results. SQLite does not, and would hardly gain.
    """
    return connection.dialect.name in ("mysql", "mariadb")


def select_parts(
    models: Sequence[type[Base]], *others: ColumnElement[Any], packed: bool
) -> Sequence[ColumnElement[Any]]:
    """Return what a query selects so that `load_parts` can read rows of several classes from its results.

    Args:
        models: the classes.
        others: other values. A packed time is a text.
        packed: whether to select one column with everything.
    """
    if packed:
        return [func.json_array(*(func.json_array(*columns(model)) for model in models), *others)]
    return [*(column for model in models for column in columns(model)), *others]


def load_parts(models: Sequence[type[Base]], values: Sequence[Any], *, packed: bool) -> list[Any]:
    """Return the rows and the other values that `select_parts` has selected. None: an outer join has found no row."""
    if packed:
        values = json.loads(values[0])
        of_rows, others = values[: len(models)], values[len(models) :]
        return [*(_unpacked(model, of_row) for model, of_row in zip(models, of_rows, strict=True)), *others]
    parts = []
    for model in models:
        width = len(columns(model))
        of_row, values = values[:width], values[width:]
        parts.append(None if of_row[0] is None else load(model, of_row))
    return [*parts, *values]


def new(model: type[Row], **values: Any) -> Row:
    """Return a row that is not stored yet. An attribute that is not given is None."""
    row = _record(model)()
    vars(row).update(dict.fromkeys(_names(model)) | values)
    return cast(Row, row)


def load(model: type[Row], values: Sequence[Any]) -> Row:
    """Return a row with values that were selected by `columns`."""
    row = _record(model)()
    attributes = vars(row)
    attributes.update(zip(_names(model), values, strict=True))
    attributes[_STORED] = tuple(values)
    return cast(Row, row)


def add(connection: Connection, row: Base) -> None:
    """Store a new row, and give it the key that the database has chosen."""
    model = _model(row)
    statement, values = _insertion(row)
    key = connection.execute(statement, values).inserted_primary_key or ()
    for column, value in zip(inspect(model).primary_key, key, strict=True):
        setattr(row, column.name, value)
    setattr(row, _STORED, _values(model)(row))


def before(row: Row) -> Row | None:
    """Return a row as it is stored, without what has changed since; None: it is new."""
    stored = getattr(row, _STORED, None)
    return None if stored is None else cast(Row, load(_model(row), stored))


def is_of(row: Base | None, model: type[Base]) -> bool:
    """Whether a row belongs to a class."""
    return row is not None and _model(row) is model


def save(connection: Connection, *rows: Base | None, also: Sequence[Statement] = ()) -> None:
    """Store some new rows, and what has changed of the others. None stands for a row that there is not.

    A new row does not learn the key that the database chooses. `add` gives it to the row.

    Args:
        connection: the transaction.
        rows: the rows.
        also: further changes, sent in the same round trip.

    Raises:
        LookupError: another transaction has deleted a row. A locked job protects its rows from this.
    """
    changes = [(row, change) for row in rows if row is not None and (change := _change(row)) is not None]
    if changes or also:
        counts, _ = batches.execute(connection, *(change for _, change in changes), *also)
        for (row, (_, values)), count in zip(changes, counts[: len(changes)], strict=True):
            if count != 1:
                key = {name.removeprefix(_OLD): value for name, value in values.items() if name.startswith(_OLD)}
                raise LookupError(f"no row of {type(row).__name__} has the key {key}")
            setattr(row, _STORED, _values(_model(row))(row))


def _change(row: Base) -> Statement | None:
    """Return the statement that stores a row; None: nothing of it has changed."""
    model, stored = _model(row), getattr(row, _STORED, None)
    if stored is None:
        return _insertion(row)
    names, values = _names(model), _values(model)(row)
    changed = {name: new for name, new, old in zip(names, values, stored, strict=True) if new != old}
    if not changed:
        return None
    key = {_OLD + column.name: getattr(row, column.name) for column in inspect(model).primary_key}
    return _update(model, tuple(changed)), key | changed


def _insertion(row: Base) -> Statement:
    model = _model(row)
    values = {key: getattr(row, name) for name, key in _keys(model).items()}
    return _insert(model), {key: values[key] for key in _inserted(model)}


@cache
def _record(model: type[Base]) -> type[Any]:
    return type(model.__name__, (), {"model": model})


def _model(row: Base) -> type[Base]:
    return cast(Any, row).model  # type: ignore[no-any-return]


def _unpacked(model: type[Row], values: Sequence[Any]) -> Row | None:
    """Read a row from its array. JSON has no times, and may write 1.0 as 1 and true as 1."""
    if values[0] is None:
        return None
    converters = _converters(model)
    converted = [
        value if value is None or convert is None else convert(value)
        for value, convert in zip(values, converters, strict=True)
    ]
    return load(model, converted)


@cache
def _converters(model: type[Base]) -> list[Callable[[Any], Any] | None]:
    of_type: dict[type, Callable[[Any], Any]] = {float: float, bool: bool, datetime: datetime.fromisoformat}
    return [of_type.get(column.type.python_type) for column in columns(model)]


@cache
def _keys(model: type[Base]) -> dict[str, str]:
    """Return the name of each attribute's column."""
    return {attribute.key: attribute.columns[0].key for attribute in inspect(model).column_attrs}


@cache
def _names(model: type[Base]) -> tuple[str, ...]:
    return tuple(_keys(model))


@cache
def _values(model: type[Base]) -> Callable[[Base], tuple[Any, ...]]:
    return attrgetter(*_names(model))


@cache
def _inserted(model: type[Base]) -> list[str]:
    """Return the columns of a new row: all but a key that the database chooses."""
    table = cast(Table, model.__table__)
    return [column.key for column in table.columns if column is not table.autoincrement_column]


@cache
def _insert(model: type[Base]) -> Insert:
    table = cast(Table, model.__table__)
    return insert(table).values({key: bindparam(key) for key in _inserted(model)})


@lru_cache
def _update(model: type[Base], names: tuple[str, ...]) -> Update:
    mapper = inspect(model)
    is_row = [column == bindparam(_OLD + column.name) for column in mapper.primary_key]
    new: dict[Any, Any] = {mapper.columns[name]: bindparam(name) for name in names}
    return update(cast(Table, model.__table__)).where(*is_row).values(new)
