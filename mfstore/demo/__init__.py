"""The main job on real data: ten versions of a table, models and small artifacts, here and in Metaflow's own store."""
