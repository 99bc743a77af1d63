"""Which fits count as trainings that recur."""

import pytest

from lightning_bso.lightning.recurring import why_no_recurrence

SCRIPT = ["lightning.pytorch.trainer.trainer", "__main__"]


def why(*modules: str, is_first_fit: bool = True, **environment: str) -> str | None:
    return why_no_recurrence("Model-Data", [*SCRIPT, *modules], environment, is_first_fit=is_first_fit)


def test_the_first_fit_of_a_script_recurs() -> None:
    assert why() is None


def test_a_later_fit_does_not() -> None:
    assert why(is_first_fit=False) == "only the first fit of a process counts as a training that recurs"


@pytest.mark.parametrize(
    "module",
    [
        *("optuna.study._optimize", "ray.tune.trainable.function_trainable", "hyperopt.fmin", "wandb.agents.pyagent"),
        *("sklearn.model_selection._validation", "lightning.pytorch.tuner.tuning", "pytorch_lightning.tuner.lr_finder"),
        *("hydra._internal.core_plugins.basic_sweeper", "hydra_plugins.hydra_optuna_sweeper._impl"),
    ],
)
def test_a_fit_that_a_search_calls_does_not(module: str) -> None:
    assert str(why(module)).startswith("the fit is called by ")


@pytest.mark.parametrize(
    "module",
    ["optunate", "sklearn.linear_model", "raymond.train", "hydra.main", "lightning.pytorch.loops", "unittests.train"],
)
def test_a_module_of_a_similar_name_is_no_search(module: str) -> None:
    assert why(module) is None


@pytest.mark.parametrize("name", ["WANDB_SWEEP_ID", "NNI_TRIAL_JOB_ID", "PYTEST_CURRENT_TEST"])
def test_a_fit_with_the_variable_of_a_search_or_a_test_does_not(name: str) -> None:
    assert why(**{name: "1"})


def test_a_fit_that_unittest_calls_does_not() -> None:
    assert why("unittest.case") == "the fit is part of a test (unittest)"


@pytest.mark.parametrize(
    ("included", "excluded", "takes_part"),
    [
        ("", "", True),
        ("Model-*", "", True),
        ("Other, Model-Data", "", True),
        ("model-*", "", False),
        ("", "Model-*", False),
        ("Model-*", "*-Data", False),
        ("", "Other,,", True),
    ],
)
def test_patterns_include_and_exclude_trainings(included: str, excluded: str, takes_part: bool) -> None:
    reason = why(ZEUS_BSO_AUTO_INCLUDE=included, ZEUS_BSO_AUTO_EXCLUDE=excluded)
    assert (reason is None) == takes_part
