"""C as facts: pieces of text, statement graphs, masks, failures. It knows no rule and no verdict's fix."""
