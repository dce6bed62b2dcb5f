"""The maintenance of a root or a store by many machines: a flow of Metaflow itself."""
