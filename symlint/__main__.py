"""``python -m symlint``."""

from symlint.cli import cli

cli(prog_name="symlint")
