"""One run: a recipe, a loop, and a folder that keeps what came of it."""
