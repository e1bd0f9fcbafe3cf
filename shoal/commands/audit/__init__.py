"""`shoal audit`: proves from what its processes noted what a run's deliveries came to."""
