"""What a process shows of itself: logs, metrics, health, and the resources that it uses and may use.

logs.py           the log, and the log lines of a loop that waits       metrics.py        the metrics of every process
health.py         /metrics, /healthz and /readyz over HTTP              http_server.py    the HTTP server
resources.py      memory, CPU time and open files
"""
