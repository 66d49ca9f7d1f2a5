"""The ground of every record: files that survive a kill, where a figure comes from, and how sure it is."""
