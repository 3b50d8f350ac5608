"""The space ``blocks``: any model that can be traced, its units and decisions found, not written."""
