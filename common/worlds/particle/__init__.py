"""MPE: the twelve scenarios as batched arrays, equal to mpe2."""
