"""`headway audit`: reads a program, never runs it, and judges how it takes memory and pools."""
