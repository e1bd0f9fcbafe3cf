"""Evaluation of teams: rollouts without exploration, task metrics, tournaments, ablations.

| question                        | file                                                            |
|---------------------------------|-----------------------------------------------------------------|
| how good is a team              | `evaluate.py`: returns; `task_metrics.py`: distances, successes |
| what did the environment report | `episode_metrics.py`: the numbers in its infos                  |
| which team is better            | `tournament.py`: every team against every team                  |
| what are its messages worth     | `ablation.py`: messages zeroed or shuffled                      |
| which teams are there           | `teams.py`: runs, frozen teams, baselines                       |
| what is played, in which world  | `task.py`                                                       |
| how are episodes played         | `rollouts/`                                                     |
"""
