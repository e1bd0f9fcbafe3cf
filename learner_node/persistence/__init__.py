"""The files that a learner writes to continue or use a run: checkpoints, milestones and the policy file."""
