"""`python -m tradeback` is the `tradeback` command."""

from tradeback.cli.main import main

main(prog_name="tradeback")
