"""Code that at least two of Shoal's processes import: runs, policies, worlds, the wire, and process support."""
