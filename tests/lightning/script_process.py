"""A script of a user in its own process: python -m tests.lightning.script_process SCRIPT ARGUMENTS…"""

import runpy
import sys

if __name__ == "__main__":
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
