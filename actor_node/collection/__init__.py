"""Collection of transitions: a worker steps its world with the policies and with exploration.

| file                | is                                                                        |
|---------------------|---------------------------------------------------------------------------|
| `rollout_worker.py` | one worker's world copies and counts, in an actor process or in lockstep  |
| `collector.py`      | the interaction loop: observation -> action -> transition                 |
| `exploration.py`    | noise on actions, and uniformly random actions                            |
"""
