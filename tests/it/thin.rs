//! Versions of files, and thinning of the revisions that have them.

mod crash;
mod doubt;
mod expiry;
mod model;
mod rules;
mod scene;
mod versions;
