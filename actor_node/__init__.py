"""World -> transitions: light processes that play the decentralised policies and send what happened. No torch."""
