"""The report's sections as HTML: each is empty where no run has what it would show."""
