"""What pages and figures share: a template, colours, quiet axes, and files that stay small."""
