"""What `shoal diagnose` and `shoal bench` look at: networks of a checkpoint, their statistics, the update's speed."""
