//! Stores at rest with every kind of file, and what must hold when something of them was damaged.
//!
//! - [`Finder`] says of each byte who must find that it is damaged, or why nobody needs to.
//! - [`StoreAtRest::check_found`] checks that, and that nothing wrong is read.
//! - [`StoreAtRest::check_survival`] runs all operations on what is left.

mod check;
mod content;
mod kind;
mod regions;
mod scene;

pub use check::{Notes, Outcome, Restored, is_named, restore};
pub use content::{Content, Sparse, SparseTarget};
pub use kind::FileKind;
pub use regions::{Finder, HARMLESS, name_of, records_of};
pub use scene::{
    Held, Size, StoreAtRest, TREE, backup_image, backup_tree, points, range_of, sparse_image,
};
