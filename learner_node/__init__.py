"""The learner: trains networks from transitions and publishes their weights. Only this package imports torch.

learner.py is the loop. algorithms/maddpg.py is the update, written as in the paper. stacked/ is the same update, made
fast. inspection/ measures the networks and the speed of the update.
"""
