"""What travels between processes, and the sockets, keys and addresses it travels by."""
