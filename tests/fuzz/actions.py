"""All the ops, by theme: importing this fills the vocabulary. Ops that find nothing to work on do nothing."""

from . import callbacks, processes, servers, sockets, streams, threads, transports, upgrades, watches

LOADED = (callbacks, processes, servers, sockets, streams, threads, transports, upgrades, watches)
OPENERS = ("open_link", "open_sock", "serve", "listen", "watch")
"""The ops that make what the others work on."""
