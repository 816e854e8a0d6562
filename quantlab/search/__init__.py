"""Which layers are INT8, FP16 or FP32, so that a target is met at the least latency."""
