"""The command `lightning-bso`: it needs the client alone, without torch and Lightning.

`cli` reads the command line, `doctor` checks a training machine, `display` lays out what is printed.
"""
