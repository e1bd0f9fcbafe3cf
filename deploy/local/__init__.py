"""A whole run on this machine: starts, supervises and shows the processes of `shoal train`."""
