"""A low-latency crypto market-data engine that loses nothing and says so when something is missing."""

from tradeback.kernel_cache import prepare
from tradeback.version import VERSION

__version__ = VERSION

prepare(VERSION)
