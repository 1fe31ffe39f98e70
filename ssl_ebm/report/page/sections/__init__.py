"""The values that each section of the page shows, for the template of the same name; None: the section is left out."""
