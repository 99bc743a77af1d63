"""Lightning's classes under the name that a program imports Lightning by.

`lightning.pytorch` and `pytorch_lightning` are one code under two names, and each name has classes of its own. A
library that stands on Lightning chooses the name for its users. So no module of this package imports Lightning: it
looks classes up here, by a path such as "callbacks:LearningRateFinder".
"""

import sys
from contextlib import suppress
from functools import cache
from importlib import import_module
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

FAMILIES = ("lightning.pytorch", "pytorch_lightning")


def loaded() -> tuple[str, ...]:
    """Return the families that the program has imported. If there is none yet, import all that can be imported.

    Raises:
        ImportError: no family can be imported. Another error of an import comes through, too.
    """
    found = tuple(family for family in FAMILIES if family in sys.modules)
    if found:
        return found
    errors = []
    for family in FAMILIES:
        try:
            import_module(family)
        except Exception as error:  # a broken family must not keep the program from using the other
            errors.append(error)
    if len(errors) == len(FAMILIES):
        raise errors[0]
    return loaded()


def family_of_class(derived: type) -> str | None:
    """Return the family of a class that derives from one of Lightning's, or None if it does not."""
    for base in derived.__mro__:
        for family in FAMILIES:
            if base.__module__.startswith(f"{family}."):
                return family
    return None


def family_of(trainer: object) -> str:
    """Return the family of a Trainer.

    Raises:
        MisconfigurationException: it is not a Trainer of Lightning.
    """
    family = family_of_class(type(trainer))
    if family is None:
        raise misconfiguration(
            f"ZeusBSOCallback is a callback of Lightning, but this Trainer is from {type(trainer).__module__}. Import "
            f"Trainer from {' or '.join(FAMILIES)}"
        )
    return family


def find(family: str, path: str) -> Any:
    """Return what a family calls by this name: a module, a colon, and a name in it."""
    return resolve_name(f"{family}.{path}")


def classes(path: str) -> tuple[Any, ...]:
    """Return the classes of this name in all loaded families, for `isinstance` and `except`."""
    return _classes(loaded(), path)


@cache
def _classes(families: tuple[str, ...], path: str) -> tuple[Any, ...]:
    found = []
    for family in families:
        with suppress(ImportError, AttributeError):  # another library may have imported an old version of its family
            found.append(find(family, path))
    return tuple(found)


def misconfiguration(message: str) -> Exception:
    """Return the error that Lightning raises for a wrong set-up. Its class is that of all loaded families."""
    error: Exception = _error_class(classes("utilities.exceptions:MisconfigurationException"))(message)
    return error


@cache
def _error_class(bases: tuple[type, ...]) -> type:
    if len(bases) == 1:
        return bases[0]
    # Another process that unpickles the error may have loaded other families.
    attributes = {"__module__": bases[0].__module__, "__reduce__": lambda self: (misconfiguration, self.args)}
    return type(bases[0].__name__, bases, attributes)


if TYPE_CHECKING:
    from lightning.pytorch import Callback as Callback
    from lightning.pytorch.utilities.rank_zero import rank_zero_info as rank_zero_info
    from lightning.pytorch.utilities.rank_zero import rank_zero_warn as rank_zero_warn
else:
    # All families share these functions. Their messages go to the logger of the family that was imported last.
    rank_zero_info = find(loaded()[0], "utilities.rank_zero:rank_zero_info")
    rank_zero_warn = find(loaded()[0], "utilities.rank_zero:rank_zero_warn")

    class Callback(*classes("callbacks.callback:Callback")):
        """The base of this package's callbacks: the `Callback` of all loaded families."""

        def __new__(cls, *_, **__):  # noqa: D102
            # A program may load a family after this module, and before it creates its callbacks.
            bases = classes("callbacks.callback:Callback")
            if Callback.__bases__ != bases:
                Callback.__bases__ = bases
            return super().__new__(cls)
