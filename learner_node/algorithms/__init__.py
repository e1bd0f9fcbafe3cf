"""The update of MADDPG and its family as a readable page that runs can use (`algorithm.engine`). Start in maddpg.py.

maddpg.py         the update in reading order: targets, critic loss, policy loss, soft update
masac.py          what stochastic policies change: entropies in targets and losses, temperatures
hatd3.py          policies that learn one after another
hasac.py          stochastic policies that learn one after another
m3ddpg.py         critics that are read with the other players' actions changed for the worse
facmac            maddpg with the critics of learner_node/networks/mixing_critics.py
actions.py        actions from the policies' logits, and target noise
distribution.py   samples of stochastic policies, and their entropies

The networks are torch modules (learner_node/networks/); autograd derives the gradients.
"""
