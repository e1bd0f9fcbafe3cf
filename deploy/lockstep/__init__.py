"""`shoal train --lockstep`: learner, replay and actors in one process and in a fixed order; same seed, same bits."""
