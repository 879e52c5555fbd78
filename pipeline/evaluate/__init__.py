"""How well a codec keeps sound: metrics by their official definitions, over any input, with every failure counted."""
