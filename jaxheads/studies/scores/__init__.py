"""Every head's scores."""
