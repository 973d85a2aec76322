"""What lasts: tables, stage directories and their names. Knows bytes and versions; no market, no models."""
