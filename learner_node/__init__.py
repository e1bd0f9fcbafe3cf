"""The learner: trains networks from transitions and publishes their weights. Only this package imports torch.

learner.py is the loop; algorithms/maddpg.py is what it learns; stacked/ computes it fast; inspection/ measures it.
"""
