"""Trained networks in use: loaded with all that goes with them, evaluated, asked about images, exported."""
