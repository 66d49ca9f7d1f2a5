"""`rdp analyze`: what the branches and layers of a network do, alone or beside another network."""
