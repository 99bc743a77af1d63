"""A LightningCLI with a group of options for the optimizer. `callback.py` says what the options do.

The stock LightningCLI accepts the callback too, as a group or under `--trainer.callbacks`. This class adds an option
with help text for each field of the job. It has no option for the token, because the configuration is saved.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from typing_extensions import override

from lightning_bso.lightning.callback import ZeusBSOCallback
from lightning_bso.lightning.families import classes, family_of_class, find, loaded
from lightning_bso.optimizer import server_address
from lightning_bso.wire import JobSpec

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
else:
    LightningCLI = find(loaded()[0], "cli:LightningCLI")

GROUP = "bso"


class BSOLightningCLI(LightningCLI):
    """A LightningCLI with the arguments of ZeusBSOCallback as `--bso.…`, and the fields of its job as `--bso.job.…`.

    The optimizer is off unless `--bso.server_url` or `$ZEUS_BSO_SERVER_URL` names a server. The job must be complete
    only if the optimizer is on. The token comes from `$ZEUS_BSO_TOKEN` only.

    It is the LightningCLI of `lightning.pytorch` or of `pytorch_lightning`. If `trainer_class` is given, it decides;
    else the class of the model, or another that the CLI gets. Without any, `lightning.pytorch` comes first.

    Example:
        >>> BSOLightningCLI(Model, Data)
        python train.py fit --bso.server_url http://127.0.0.1:8000 --bso.job job.yaml
    """

    @wraps(LightningCLI.__init__)  # type: ignore[misc]  # for the signature that users and editors see
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = (kwargs.get("trainer_class"), *args, *kwargs.values())
        families = (family_of_class(each) for each in given if isinstance(each, type))
        family = next(filter(None, families), loaded()[0])
        BSOLightningCLI.__bases__ = (find(family, "cli:LightningCLI"),)
        super().__init__(*args, **kwargs)

    @override
    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_core_arguments_to_parser(parser)
        skipped = {"job", "token", "energy_monitor"}
        parser.add_class_arguments(ZeusBSOCallback, GROUP, skip=skipped, instantiate=False, sub_configs=True)
        job_options = parser.add_class_arguments(JobSpec, f"{GROUP}.job", instantiate=False, sub_configs=True)
        for action in parser._actions:  # argparse has no public way to look up an argument
            action.required = action.required and action.dest not in job_options
            if action.dest == f"{GROUP}.job":
                load = action._load_config  # type: ignore[attr-defined]  # jsonargparse's, for the whole group
                action._load_config = partial(_load_job, load)  # type: ignore[attr-defined]

    @override
    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        group = self._get(self.config, GROUP)
        options = {} if group is None else group.as_dict()
        options["server_url"] = server_address(options.get("server_url"))
        if self.subcommand in (None, "fit") and options["server_url"] is not None:
            # At the front, because Lightning keeps the checkpoint callbacks at the end.
            trainer.callbacks.insert(0, self._make_callback(options))  # type: ignore[attr-defined]  # set by a connector
        return trainer

    def _make_callback(self, options: dict[str, Any]) -> ZeusBSOCallback:
        try:
            options["job"] = JobSpec.model_validate(_drop_missing(options.get("job") or {}))
            return ZeusBSOCallback(**options)
        except ValidationError as error:
            faults = [
                f"--{GROUP}.{'.'.join(map(str, ('job', *fault['loc'])))}: {fault['msg']}" for fault in error.errors()
            ]
            self._parser(self.subcommand).error("; ".join(faults))
        except classes("utilities.exceptions:MisconfigurationException") as error:
            self._parser(self.subcommand).error(f"--{GROUP}: {error}")


def _drop_missing(fields: dict[str, Any]) -> dict[str, Any]:
    """Drop the required fields of a job that have no value. The parser lets them pass, and JobSpec reports them."""
    return {
        name: value
        for name, value in fields.items()
        if value is not None or not JobSpec.model_fields[name].is_required()
    }


def _load_job(load: Callable[[Any, ArgumentParser], Any], value: Any, parser: ArgumentParser) -> Any:
    """Load the file of a job. A saved configuration may have `null` instead of a file, which means no job."""
    return {} if value in (None, "null") else load(value, parser)
