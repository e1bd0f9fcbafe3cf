"""The wire: messages between processes, their encoding, and the sockets, keys and addresses that carry them."""
