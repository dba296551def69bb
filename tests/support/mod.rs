//! Helpers shared by the scenario tests.

pub mod model_store;
