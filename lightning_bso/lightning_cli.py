"""LightningCLI with a group of options for the optimizer. What these do: `callback.py`.

The stock LightningCLI takes the callback, too, under `--trainer.callbacks`; here it has a place of its own, is off
without a server, and no option for the token, which must not be saved with the configuration.
"""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from pydantic import ValidationError
from typing_extensions import override

from lightning_bso.callback import ZeusBSOCallback
from lightning_bso.optimizer import server_address
from lightning_bso.wire import JobSpec

GROUP = "bso"


class BSOLightningCLI(LightningCLI):
    """LightningCLI with the arguments of ZeusBSOCallback as `--bso.…`, and those of its job as `--bso.job.…`.

    The optimizer is off unless `--bso.server_url`, or `$ZEUS_BSO_SERVER_URL`, names a server; only then the job must be
    complete. The token comes from `$ZEUS_BSO_TOKEN` alone.

    Example:
        >>> BSOLightningCLI(Model, Data)
        python train.py fit --bso.server_url http://127.0.0.1:8000 --bso.job job.yaml
    """

    @override
    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_core_arguments_to_parser(parser)
        without = {"job", "token", "energy_monitor"}
        parser.add_class_arguments(ZeusBSOCallback, GROUP, skip=without, instantiate=False, sub_configs=True)
        added = parser.add_class_arguments(JobSpec, f"{GROUP}.job", instantiate=False, sub_configs=True)
        for action in parser._actions:  # argparse has no other way to find an argument again
            action.required = action.required and action.dest not in added

    @override
    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        options = self._get(self.config, GROUP).as_dict()
        if self.subcommand in (None, "fit") and server_address(options["server_url"]) is not None:
            # First: Lightning keeps the checkpoint callbacks at the end.
            trainer.callbacks.insert(0, self._make_callback(options))  # type: ignore[attr-defined]  # set by a connector
        return trainer

    def _make_callback(self, options: dict[str, Any]) -> ZeusBSOCallback:
        options["job"] = {name: value for name, value in options["job"].items() if value is not None}
        try:
            return ZeusBSOCallback(**options)
        except ValidationError as error:
            faults = [
                f"--{GROUP}.{'.'.join(map(str, ('job', *fault['loc'])))}: {fault['msg']}" for fault in error.errors()
            ]
            self._parser(self.subcommand).error("; ".join(faults))
