"""`shoal check`: measures a world before training: its contract, sizes, scales, returns and speed.

check.py (the caller's process)                    check_process.py (a child: the user's code may hang or crash it)
--- CheckTask ------------------------------------>
<-- StageStarted("random actions"), ... ----------  the stage that starts
<-- AgentsFound, PlayFigures, ContractTest, ... --  the figures of each stage as soon as they are known
findings.py                                 turns the figures into problems, advice and settings
text.py, cli.py                             print the figures and findings
"""
