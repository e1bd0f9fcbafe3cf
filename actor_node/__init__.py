"""Actors: light processes that play the decentralised policies and send the transitions. No torch."""
