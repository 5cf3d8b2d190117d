"""The kit that pages are made of; it knows no study."""
