"""The packed profile: a task's artifacts as bundles of a store below the datastore root."""
