"""What every Shoal process needs as a process: its command line, log, signals, exit codes, metrics and limits."""
