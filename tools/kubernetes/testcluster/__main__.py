"""`python -m testcluster`."""

from testcluster.cli import main

main(prog_name="testcluster")
