"""The LUKS formats: a volume key in key slots, which passphrases open."""
