"""Baselines: the same work done another way, measured in the same run."""
