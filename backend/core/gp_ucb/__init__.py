"""The policy `gp-ucb`: failure-aware GP-UCB on log cost.

`policy` decides. It rests on `belief`, the posterior of what each batch size costs, which combines `epochs` (epochs to
the target) and `epoch_cost` (cost of one epoch). `gaussian` holds the algebra. docs/policies.md explains the method.
"""
