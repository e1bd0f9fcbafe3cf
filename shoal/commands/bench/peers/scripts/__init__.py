"""Programs that run in the virtual environments of peers; they import nothing of Shoal but each other."""
