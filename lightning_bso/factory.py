"""The entry point that Lightning calls for every Trainer, to ask for callbacks.

Off unless `$ZEUS_BSO_AUTO` is 1 and `$ZEUS_BSO_SERVER_URL` names a server. It then imports nothing, because it runs in
every program that uses Lightning beside this package. The callback itself is in `lightning.automatic`.
"""

import importlib
import logging
import os
from collections.abc import Mapping
from typing import Any

from lightning_bso import variables

GROUPS = ("lightning.pytorch.callbacks_factory", "pytorch_lightning.callbacks_factory")
"""The entry points that Lightning looks up, one for each of its names."""


def why_off(environment: Mapping[str, str]) -> str | None:
    """Say why no Trainer gets the callback by itself. None: every Trainer gets it."""
    if environment.get(variables.AUTO) != "1":
        return f"${variables.AUTO} is not 1"
    if not environment.get(variables.SERVER_URL):
        return f"${variables.SERVER_URL} is not set"
    return None


def make_callbacks() -> list[Any]:
    """Return the callback for one Trainer, or nothing. Raises nothing, because that would end the program."""
    if why_off(os.environ) is not None:
        return []
    try:
        # By its name, so that what imports this module does not depend on torch and Lightning.
        return [importlib.import_module("lightning_bso.lightning.automatic").AutomaticBSOCallback()]
    except Exception as error:
        logging.getLogger(__name__).warning(
            "The automatic batch-size optimizer is off: %s: %s. `lightning-bso doctor` checks this machine",
            type(error).__name__,
            error,
        )
        return []
