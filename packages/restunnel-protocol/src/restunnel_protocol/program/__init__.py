"""What the hub's and the node's programs share, apart from the protocol itself.

Exit codes and one-line errors, layered settings, private files, starting an event
loop, and telling scripts and systemd that a service is ready. The protocol's
modules import nothing from here.
"""
