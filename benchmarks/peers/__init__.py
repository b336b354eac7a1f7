"""Other libraries that bring Binance's market data, side by side with tradeback on one simulated exchange."""
