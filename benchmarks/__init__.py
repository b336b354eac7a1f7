"""Benchmarks: `python -m benchmarks` measures the paths, `pytest benchmarks` the kernels. See README.md."""
