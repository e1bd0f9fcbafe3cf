"""The networks of the autograd engine: torch modules that compute several networks of equal sizes at once.

grouped_mlp.py   the networks: ReLU layers of a group of networks     groups.py        which networks form a group; inputs
network_set.py   parameters, targets and optimiser of all groups
"""
