"""From a checkout: the simulated exchange, as `tradeback sim`. Options are the same."""

import sys

from tradeback.cli.main import main

main(["sim", *sys.argv[1:]])
