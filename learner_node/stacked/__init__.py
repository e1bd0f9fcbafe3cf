"""How the update of algorithms/maddpg.py is made fast: stacked networks with gradients written by hand.

update.py       the update                         layout.py     who has which networks; algorithm variants
losses.py       losses and their gradients         networks.py   layers as views; parameters.py and sharing.py
passes.py       forward and backward passes        heads.py      actions from logits (head_kinds.py)
rewards.py      players' rewards and row weights   workspace.py, optimiser.py, update_stats.py
"""
