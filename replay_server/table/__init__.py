"""The transitions of one run in memory: ring, samplers, n-step samples and the rate limiter."""
