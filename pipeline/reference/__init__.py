"""The reference page of the indicators, docs/indicators.md with its pictures, made from what they say of themselves."""
