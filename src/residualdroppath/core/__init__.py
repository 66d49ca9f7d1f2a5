"""The method itself: needs torch alone."""
