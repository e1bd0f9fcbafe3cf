"""How good a team is: rollouts without exploration, task metrics, tournaments, ablations."""
