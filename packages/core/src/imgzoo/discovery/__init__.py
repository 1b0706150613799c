"""How plugins are found, loaded, switched and examined. No torch."""
