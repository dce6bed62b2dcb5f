"""What a process has of its machine: threads, clocks, a cache on disk. Knows nothing of stores."""
