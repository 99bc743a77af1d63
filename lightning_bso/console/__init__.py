"""The command `lightning-bso`. It requires only the client's packages, not torch and not Lightning.

`cli` reads the command line, `doctor` checks a training machine, and `display` formats jobs and trials as text.
"""
