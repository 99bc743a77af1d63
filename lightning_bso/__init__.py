"""lightning-bso finds the cheapest batch size for a training that runs again and again.

Each public name is loaded on first use, so importing this package loads neither torch nor Lightning nor Zeus.
Start reading at `optimizer` (a run without a framework) or at `lightning.callback` (the same with Lightning).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_bso.client import BsoClient
    from lightning_bso.errors import (
        BSOError,
        EnergyUnavailable,
        ServerRefused,
        ServerUnreachable,
        ZeusBSOTrainFailError,
    )
    from lightning_bso.lightning.callback import ZeusBSOCallback
    from lightning_bso.lightning.lightning_cli import BSOLightningCLI
    from lightning_bso.lightning.power_limit import ZeusPowerLimitCallback
    from lightning_bso.optimizer import BatchSizeOptimizer
    from lightning_bso.ranks import TorchRanks
    from lightning_bso.wire import JobParams, JobSpec, ProbedSize

_MODULES = {
    "BSOError": "errors",
    "BSOLightningCLI": "lightning.lightning_cli",
    "BatchSizeOptimizer": "optimizer",
    "BsoClient": "client",
    "EnergyUnavailable": "errors",
    "JobParams": "wire",
    "JobSpec": "wire",
    "ProbedSize": "wire",
    "ServerRefused": "errors",
    "ServerUnreachable": "errors",
    "TorchRanks": "ranks",
    "ZeusBSOCallback": "lightning.callback",
    "ZeusBSOTrainFailError": "errors",
    "ZeusPowerLimitCallback": "lightning.power_limit",
}

__all__ = [
    "BSOError",
    "BSOLightningCLI",
    "BatchSizeOptimizer",
    "BsoClient",
    "EnergyUnavailable",
    "JobParams",
    "JobSpec",
    "ProbedSize",
    "ServerRefused",
    "ServerUnreachable",
    "TorchRanks",
    "ZeusBSOCallback",
    "ZeusBSOTrainFailError",
    "ZeusPowerLimitCallback",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        hint = f"{name} needs {error.name}: pip install 'lightning-bso[lightning]'"
        raise ImportError(hint, name=error.name) from error


def __dir__() -> list[str]:
    return __all__
