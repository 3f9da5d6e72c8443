"""The NBD protocol: bytes in, decisions out. No socket, no device, no waiting."""
