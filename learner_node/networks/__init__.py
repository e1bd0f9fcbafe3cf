"""The networks of the autograd engine: torch modules that compute several networks of equal sizes at once.

grouped_mlp.py   the layers of a group of networks
set_critics.py   critics that encode each agent once, and combine the encodings by their mean or by attention
mixing_critics.py  a side's critic that mixes utilities of its members (FACMAC)
user_critics.py  critics of a user's class
value_bins.py    values as distributions over bins
groups.py        which networks form a group, and what they read
network_set.py   parameters, targets and optimiser of all groups
"""
