"""Benchmarks: speeds and memory, as ratios in one run."""
