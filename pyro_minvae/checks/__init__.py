"""The bound against itself: every term by several independent roads, on real sizes and where integrals are exact."""
