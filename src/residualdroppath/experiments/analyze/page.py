"""The page of an analysis."""

def write_page(path, record, unit_maps):
    return path
