"""Runs: settings, presets, players and the run directory."""
