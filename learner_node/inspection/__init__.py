"""What `shoal diagnose` and `shoal bench` measure: a checkpoint's networks, their statistics, the update's speed."""
