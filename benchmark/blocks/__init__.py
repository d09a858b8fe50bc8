"""Parts that two or more recipes share. A part moves here at its second use and out again at zero."""
