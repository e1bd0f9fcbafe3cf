"""Process support that every role uses: command line, log, signals, exit codes, metrics, health and limits."""
