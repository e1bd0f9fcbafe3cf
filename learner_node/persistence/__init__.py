"""What a run keeps on disk while it trains: checkpoints, milestones and the policy file."""
