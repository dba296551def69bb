//! Which files of a tree are meant.

use std::fmt;
use std::sync::Arc;

use crate::format::TreePath;

/// Says of a path whether it is meant.
type Matches = dyn Fn(&TreePath) -> bool + Send + Sync;

/// Chooses files by their paths.
#[derive(Clone)]
pub struct PathFilter(Option<Arc<Matches>>);

impl PathFilter {
    /// Chooses all files.
    #[must_use]
    pub const fn all() -> Self {
        Self(None)
    }

    /// Chooses the files for which `matches` returns true.
    #[must_use]
    pub fn new(matches: impl Fn(&TreePath) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(matches)))
    }

    /// Returns whether a file is chosen.
    #[must_use]
    pub fn matches(&self, path: &TreePath) -> bool {
        self.0.as_ref().is_none_or(|matches| matches(path))
    }
}

impl Default for PathFilter {
    fn default() -> Self {
        Self::all()
    }
}

impl fmt::Debug for PathFilter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() { "PathFilter(some)" } else { "PathFilter(all)" })
    }
}
