"""Environments from other packages and of users, as worlds: made, checked against their contract, stepped copy by copy.

| question                                         | file                                                           |
|--------------------------------------------------|----------------------------------------------------------------|
| how does a ParallelEnv become a World            | `pettingzoo_world.py`                                          |
| how do AEC and Gymnasium environments become one | `conversion.py`, `gymnasium_env.py`                            |
| who makes the copies, with which options         | `construction.py`, `constructor_options.py`                    |
| what must an environment return                  | `contract.py`; `faults.py`: the texts of its exceptions        |
| how are observations and actions encoded         | `spaces.py`, `masks.py`, `info_metrics.py`                     |
| what is known before a run starts                | `first_copy.py`, `first_copy_process.py`, `measure.py`         |
"""
