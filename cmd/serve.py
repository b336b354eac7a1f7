"""From a checkout: the engine, as `tradeback run`. Options are the same."""

import sys

from tradeback.cli.main import main

main(["run", *sys.argv[1:]])
