"""The commands of `shoal`, a module or a folder each."""
