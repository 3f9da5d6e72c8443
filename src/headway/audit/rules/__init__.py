"""The C rules, one file each; a rule does not import another."""
