"""`rdp compare`: methods by seeds, at equal iterations or at equal cost."""
