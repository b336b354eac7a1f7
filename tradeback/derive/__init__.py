"""Bars, Enigma levels and latest prices as pure functions of tape records.

`layout` (shapes), `bars` (rules of merging and completeness in plain Python), `enigma` and `seeds` need no
compiler; `bar_kernel`, `row_kernel` and `state` import numba.
"""
