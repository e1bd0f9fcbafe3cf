"""The networks of the autograd engine: torch modules that compute several networks of equal sizes at once.

grouped_mlp.py   the layers of a group of networks
groups.py        which networks form a group, and what they read
network_set.py   parameters, targets and optimiser of all groups
"""
