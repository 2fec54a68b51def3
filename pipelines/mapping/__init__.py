"""`embed`, step by step: the collection of vectors, pictures and previews, the page."""
