"""From one store to another: what is missing there travels as it is stored, checked on its way."""
