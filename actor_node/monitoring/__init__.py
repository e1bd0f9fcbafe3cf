"""Monitoring: how the supervisor observes its workers, and reports for them.

| file                   | is                                                                            |
|------------------------|-------------------------------------------------------------------------------|
| `shared_metrics.py`    | the workers' metrics, in memory that they share with the supervisor           |
| `environment_calls.py` | the call of the user's code that each worker executes, in the same memory     |
| `busy_reporter.py`     | reports to replay servers for workers whose environment keeps them from it    |
| `failure_pipe.py`      | the pipe through which a worker reports its failure before it ends            |
| `worker_exits.py`      | why a worker ended                                                            |
"""
