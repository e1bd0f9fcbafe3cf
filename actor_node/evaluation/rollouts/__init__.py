"""Rollouts: how the episodes of a team are played.

| file                                  | is                                                                          |
|---------------------------------------|-----------------------------------------------------------------------------|
| `rollout.py`                          | plays a team's episodes in one of the three ways below                      |
| `batched.py`                          | in a world whose copies step together: MPE, mpe2 itself; also for diagnosis |
| `copies.py`                           | in copies of any other environment: an exception costs one episode          |
| `process_pool.py`, `play_process.py`  | in processes with such copies: the parent, the child                        |
| `schedule.py`                         | how many episodes are played                                                |
| `episodes.py`                         | the types that all of these share: actors, watchers, results                |
"""
