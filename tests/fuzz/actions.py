"""All the ops, by theme: importing this fills the vocabulary. An op that finds an empty slot does nothing."""

from . import callbacks, processes, servers, sockets, streams, threads, transports, upgrades, watches

LOADED = (callbacks, processes, servers, sockets, streams, threads, transports, upgrades, watches)
OPENERS = ("open_link", "open_sock", "serve", "listen", "watch")
"""The ops that make the objects for the other ops."""
