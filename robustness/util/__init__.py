"""Tools that know nothing of models or images."""
