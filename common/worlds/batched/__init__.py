"""Worlds that step many copies in one call: a user's own (`batched:package.module`) and VMAS (`vmas:balance`).

    name -> find_constructor(name, path) -> make(copies, seed, **options) -> CheckedWorld

| module           | contains                                                                                       |
|------------------|------------------------------------------------------------------------------------------------|
| user_module.py      | `batched:package.module` and `batched:package.module:attribute`                                |
| vmas.py          | `vmas:SCENARIO`: all copies in one VMAS environment                                            |
| checked_world.py | CheckedWorld: checks every result, applies the rules for episodes, and names copy, step, agent |

Each of the first two has `find_constructor(name, path)` and `names()`, as every family of worlds.
"""
