"""Benchmarks: speed, memory and accuracy on the shipped networks, compared within one run."""
