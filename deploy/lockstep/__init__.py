"""`shoal train --lockstep`: learner, replay and actors in one process and a fixed order. Same seed, same bits."""
