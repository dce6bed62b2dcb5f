"""Loading that runs nothing but what is listed: pickles of whoever may write."""
