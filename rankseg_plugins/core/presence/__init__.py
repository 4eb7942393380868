"""Which classes an image holds, and with that which are shown."""
