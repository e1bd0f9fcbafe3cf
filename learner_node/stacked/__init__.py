"""The update of algorithms/maddpg.py, made fast: stacked networks with gradients written by hand. Start in update.py.

update.py         the update, in the order of maddpg.py       networks.py   layers as views of one flat buffer
losses.py         gradients of the losses                     sharing.py    networks that several players share
passes.py         forward and backward passes                 parameters.py parameters, targets, gradients and optimiser
heads.py          actions from logits (head_kinds.py)         workspace.py  the memory of an update
"""
