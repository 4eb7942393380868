"""One file a format: how its values come off the disk."""
