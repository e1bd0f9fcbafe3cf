"""Films of trained teams."""
