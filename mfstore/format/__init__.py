"""Every record that is stored, as pure functions between bytes and frozen values: docs/format.md in code."""
