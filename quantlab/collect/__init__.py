"""From batches to histograms: run the model, look at its activations, keep only counts."""
