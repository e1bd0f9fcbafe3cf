"""What both engines of the update share. Start in batches.py.

batches.py         a minibatch, and the weights of its rows     layout.py        which networks a run has; variants
signals.py         players' rewards, discounts and presence     losses.py        TD targets and the values of the losses
normalisation.py   observations and rewards near 1              optimiser.py     Adam and clipping on flat buffers
draws.py           initial parameters and Gumbel noise          network_state.py what checkpoints contain of networks
update_stats.py    statistics of an update                      engine_base.py   an engine without its networks
"""
