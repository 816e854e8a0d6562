"""The accuracy benchmark: quantlab beside its peers on ordinary and on hard networks."""
