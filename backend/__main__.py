"""Run the command line: `python -m backend`."""

from . import COMMAND
from .cli import main

main(prog_name=COMMAND)
