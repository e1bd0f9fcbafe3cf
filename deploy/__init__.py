"""How Shoal is run: one command on one machine, and what the deployments on many need."""
