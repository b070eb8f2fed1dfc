"""the command line: one file per command group"""

from tripost.gateway.cli.main import main

__all__ = ["main"]
