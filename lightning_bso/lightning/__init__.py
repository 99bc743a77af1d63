"""Everything that knows Lightning and torch.

`callback` is the entry: it calls `lightning_bso.optimizer` at Lightning's hooks. Each other module does one job for it:
set the batch size (`dataloading`), check the trainer (`checks`), resume (`checkpoints`), scale learning rates
(`lr_scaling`), time other batch sizes (`probing`). Support for another framework is a sibling of this package.
"""
