"""New weights on their way to the actors: weights_publisher.py gives them a version, broadcast.py sends them."""
