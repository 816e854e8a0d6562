"""Histograms of tensors that lie in a GPU's memory; only counts come back."""
