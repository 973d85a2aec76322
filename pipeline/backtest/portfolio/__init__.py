"""Many symbols at once: scores become targets, targets become orders, orders become won."""
