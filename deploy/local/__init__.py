"""A whole run on this machine: the processes of `shoal train`, kept alive and shown."""
