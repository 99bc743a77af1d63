"""The policy `zeus`: the published one (You et al., NSDI 2023).

`policy` decides. First `pruning` explores the batch sizes in rounds, then `thompson` samples among the survivors.
`results` summarizes ended trials for both.
"""
