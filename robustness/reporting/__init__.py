"""Reports: one document of a run in plain JSON types, and tables and files made of it without looking elsewhere."""
