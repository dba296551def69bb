//! Helpers shared by the scenario tests: a store on a simulated file system, images, and what must be true of a store.

pub mod attempt;
pub mod crash;
pub mod damage;
pub mod documents;
pub mod explorer;
pub mod history;
pub mod images;
pub mod long_tests;
pub mod memory;
pub mod memory_tree;
pub mod model;
pub mod model_store;
pub mod simulated_store;
