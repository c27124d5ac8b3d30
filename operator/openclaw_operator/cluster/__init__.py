"""The cluster as the operator needs it: five verbs, and a cache of what was last seen."""
