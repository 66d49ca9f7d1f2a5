"""What an iteration costs beside what users would run instead, and beside what must be computed."""
