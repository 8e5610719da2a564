"""The commands on a workspace, one file each: what the command line and the Python door call."""
