"""Images by name or folder: loaded, cut into parts, batched and augmented."""
