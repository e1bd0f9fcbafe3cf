"""The update of algorithms/maddpg.py, made fast: stacked networks with gradients written by hand. Start in update.py.

update.py         the update, in the order of maddpg.py       layout.py     which networks a run has; algorithm variants
losses.py         losses and their gradients                  networks.py   layers as views of one flat buffer
passes.py         forward and backward passes                 sharing.py    networks that several players share
rewards.py        players' rewards, and row weights           parameters.py parameters, targets, gradients and optimiser
heads.py          actions from logits (head_kinds.py)         optimiser.py  Adam and gradient clipping
update_stats.py   statistics of an update                     workspace.py  the memory of an update
"""
