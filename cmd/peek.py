"""From a checkout: the trades of a running engine, as `tradeback tail`. Without symbols: of all."""

import sys

from tradeback.cli.main import main

words = sys.argv[1:]
main(["tail", *(words if words and not words[0].startswith("-") else ["*", *words])])
