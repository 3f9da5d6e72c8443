"""Block devices and what moves data between them: decisions only."""
