"""``python -m openclaw`` is the ``openclaw`` command."""

from openclaw.cli import main

main(prog_name="openclaw")
