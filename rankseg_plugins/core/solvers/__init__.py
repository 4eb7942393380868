"""Exact expected scores, BA and TRNA: slower, for comparison and for small structures."""
