"""The package's part that depends on Lightning and torch.

`callback` is the entry point: it calls `lightning_bso.optimizer` at Lightning's hooks. Each other module does one job
for it: set the batch size (`dataloading`), check the trainer (`checks`), resume (`checkpoints`), scale learning rates
(`lr_scaling`), time other batch sizes (`probing`). Support for another framework belongs in a package beside this one.
"""
