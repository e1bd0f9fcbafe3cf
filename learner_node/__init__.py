"""The learner: trains networks from transitions and publishes their weights. Only this package imports torch.

learner.py is the loop. engine.py is the contract of an update. algorithms/maddpg.py is the update as in the papers.
stacked/ is the same update with gradients written by hand. inspection/ measures networks and speed.
"""
