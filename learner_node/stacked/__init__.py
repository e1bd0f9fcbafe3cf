"""The fast update of the MADDPG family: stacked networks with gradients written by hand."""
