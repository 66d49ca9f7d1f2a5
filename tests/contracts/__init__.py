"""The contracts of DESIGN.md, section 4, on any network: one walk for tiny, users', libraries' and random networks."""
