"""Evaluation of teams: rollouts without exploration, task metrics, tournaments, ablations.

| question                                   | file                                                                   |
|--------------------------------------------|------------------------------------------------------------------------|
| how good is a team                         | `evaluate.py`: returns; `task_metrics.py`: distances, successes        |
| which team is better                       | `tournament.py`: every team against every team                         |
| what are its messages worth                | `ablation.py`: messages zeroed or shuffled                             |
| which teams are there                      | `teams.py`: runs, frozen teams, baselines                              |
| what is played, in which world             | `task.py`                                                              |
| how are episodes played                    | `rollouts.py`: chooses one of the three ways below                     |
| - in a world whose copies step together    | `batched_rollouts.py`: MPE, batched or mpe2 itself; also diagnosis     |
| - in copies of any other environment       | `copy_rollouts.py`: an exception costs one episode                     |
| - in processes with such copies            | `process_pool.py`: the parent; `play_process.py`: the child            |
| how many episodes are played               | `episode_schedule.py`                                                  |
| what do episodes return                    | `episodes.py`: the types that all of these share                       |
"""
