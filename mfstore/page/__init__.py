"""One page of HTML that shows a store, or what lies below a datastore root of Metaflow, and needs nothing else."""
