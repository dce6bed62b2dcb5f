"""What a person sees: numbers, tables and cards, as text and as HTML. Knows nothing of stores."""
