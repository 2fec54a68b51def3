"""From one sound towards another: what the user asks for, as a move that a file goes through."""
