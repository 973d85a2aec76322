"""Bars to columns: blocks of indicator columns and targets, made by a Dask graph over the lake."""
