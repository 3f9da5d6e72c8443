"""Serving devices over NBD: sockets, frames and devices, under the decisions of `headway.core.nbd`."""
