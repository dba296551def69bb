//! Throughput of the store: see `benches/benches/`.
