"""Parts that two or more recipes share. A part moves here when a second recipe needs it, and out when none does."""
