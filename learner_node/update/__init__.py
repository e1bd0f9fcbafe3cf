"""What both engines of the update share. Start in batches.py.

batches.py       a minibatch, and the weights of its rows       layout.py        which networks a run has; variants
signals.py       players' rewards, discounts and presence       losses.py        TD targets and the values of the losses
optimiser.py     Adam and gradient clipping on flat buffers     draws.py         initial parameters and Gumbel noise
update_stats.py  statistics of an update                engine_base.py   what an engine is besides its networks
"""
