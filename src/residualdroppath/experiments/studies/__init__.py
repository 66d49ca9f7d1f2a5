"""`rdp study`: a question as a file; runs that are cached by content, a table and a page as its answer."""
