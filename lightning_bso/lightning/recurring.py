"""Decides whether a fit is a training that recurs, or one of a search, a test or a trial run.

Pure: the caller looks at the process. `automatic.py` asks here, because it adds itself to every Trainer of a program.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from lightning_bso import variables

SEARCHES = (
    *("optuna", "ray", "hyperopt", "skopt", "sklearn.model_selection", "wandb", "nni", "ax", "smac", "nevergrad"),
    *("lightning.pytorch.tuner", "pytorch_lightning.tuner"),
    *("hydra._internal.core_plugins", "hydra_plugins"),
)
"""Packages that call a training again and again with values of their own. In Ray, a training may be one of a search.

Hydra's sweepers and launchers are its plugins. It calls a single run without them.
"""
SEARCH_VARIABLES = ("WANDB_SWEEP_ID", "NNI_TRIAL_JOB_ID")
"""Variables that a search sets in the processes of its trainings."""
TEST_VARIABLE = "PYTEST_CURRENT_TEST"
TESTS = "unittest"
"""A package that calls tests, and sets no variable."""


def why_no_recurrence(
    job_id_prefix: str, calling_modules: Iterable[str], environment: Mapping[str, str], *, is_first_fit: bool
) -> str | None:
    """Say why a fit does not recur. None: as far as is known, it does.

    Args:
        job_id_prefix: start of the name of the fit's job.
        calling_modules: names of the modules that the fit is called from.
        environment: the environment variables of the process.
        is_first_fit: whether no fit of this process has come before.
    """
    modules = list(calling_modules)
    search = next((package for module in modules for package in SEARCHES if _is_in(module, package)), None)
    if search is not None:
        return f"the fit is called by {search}, so it may be one of a search"
    variable = next((name for name in SEARCH_VARIABLES if environment.get(name)), None)
    if variable is not None:
        return f"${variable} is set, so the fit is one of a search"
    if TEST_VARIABLE in environment:
        return "the fit is part of a test (pytest)"
    if any(_is_in(module, TESTS) for module in modules):
        return f"the fit is part of a test ({TESTS})"
    included, excluded = (_patterns(environment, name) for name in (variables.AUTO_INCLUDE, variables.AUTO_EXCLUDE))
    if included and not _matches(job_id_prefix, included):
        return f"{job_id_prefix!r} matches no pattern of ${variables.AUTO_INCLUDE}"
    if _matches(job_id_prefix, excluded):
        return f"{job_id_prefix!r} matches a pattern of ${variables.AUTO_EXCLUDE}"
    if not is_first_fit:
        return "only the first fit of a process counts as a training that recurs"
    return None


def _is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _patterns(environment: Mapping[str, str], name: str) -> list[str]:
    return [pattern.strip() for pattern in environment.get(name, "").split(",") if pattern.strip()]


def _matches(text: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)
