"""What scores say before they are traded: information coefficients and their decay, quantiles, exposure, capacity."""
