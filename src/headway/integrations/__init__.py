"""headway in other people's pools: one file for each; none is imported by headway itself."""
