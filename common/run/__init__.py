"""What a run is: its settings, presets, players and directory."""
