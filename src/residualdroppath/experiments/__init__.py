"""Several runs side by side: their cost, their accuracy, and the table of both."""
