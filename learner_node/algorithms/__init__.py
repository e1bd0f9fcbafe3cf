"""The update of MADDPG and its family, written plainly with autograd. Start in maddpg.py.

maddpg.py     the update in reading order: targets, critic loss, policy loss, soft update
networks.py   the policies and critics: ReLU networks, one module each
actions.py    actions from a policy's logits, and target noise
"""
