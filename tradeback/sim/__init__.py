"""A Binance double: streams, REST, recordings and synthetic markets."""
