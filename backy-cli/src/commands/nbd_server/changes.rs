//! What has changed since another revision, as a dirty bitmap: the metadata context that qemu and libvirt know for
//! incremental backups (qemu, docs/interop/nbd.rst, "qemu:dirty-bitmap").

use std::sync::Arc;

use chunkstore::{ImageReader, Overlay};
use nbd_server::{ErrorCode, ExportError, MetaContext, StatusExtent};

/// Beginning of the name of such a context; a revision specification follows.
pub(super) const CONTEXT_PREFIX: &str = "qemu:dirty-bitmap:";

/// Flag of what has changed (qemu, docs/interop/nbd.rst: "bit 0: dirty").
const DIRTY: u32 = 1;

#[derive(Debug)]
pub(super) struct ChangesSince {
    pub(super) older: Arc<ImageReader>,
    pub(super) reader: Arc<ImageReader>,
    pub(super) overlay: Option<Arc<Overlay>>,
}

/// A run of bytes, and whether they may have changed.
type Run = (u64, bool);

impl MetaContext for ChangesSince {
    fn extents(
        &self,
        offset: u64,
        len: u64,
        count_max: usize,
    ) -> Result<Vec<StatusExtent>, ExportError> {
        let failed = |error: chunkstore::Error| ExportError::new(ErrorCode::Io, error.to_string());
        let changes = self.reader.changes_since(&self.older, offset, len, count_max);
        let mut runs: Vec<Run> =
            changes.map_err(failed)?.iter().map(|run| (run.len, run.is_changed)).collect();
        if let Some(overlay) = &self.overlay {
            let own = overlay.changed_extents(offset, len, count_max).map_err(failed)?;
            let own = own.iter().map(|one| (one.range.end - one.range.start, one.is_changed));
            runs = either(&runs, &own.collect::<Vec<_>>());
        }
        let extent = |(len, is_changed)| StatusExtent { len, flags: u32::from(is_changed) * DIRTY };
        Ok(runs.into_iter().take(count_max).map(extent).collect())
    }
}

/// Returns where one of the two says that something has changed, as far as both reach.
fn either(left: &[Run], right: &[Run]) -> Vec<Run> {
    let (mut left, mut right) = (left.iter().copied(), right.iter().copied());
    let (mut one, mut other) = (left.next(), right.next());
    let mut runs: Vec<Run> = Vec::new();
    while let (Some((left_len, left_changed)), Some((right_len, right_changed))) = (one, other) {
        let len = left_len.min(right_len);
        let is_changed = left_changed || right_changed;
        match runs.last_mut() {
            Some(last) if last.1 == is_changed => last.0 += len,
            _ => runs.push((len, is_changed)),
        }
        let rest = |whole: u64, changed: bool| (len < whole).then_some((whole - len, changed));
        one = rest(left_len, left_changed).or_else(|| left.next());
        other = rest(right_len, right_changed).or_else(|| right.next());
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_covers_what_both_know_and_joins_what_is_alike() {
        let left = [(4, false), (4, true), (8, false)];
        let right = [(6, false), (6, false), (2, true)];
        assert_eq!(either(&left, &right), [(4, false), (4, true), (4, false), (2, true)]);
        assert_eq!(either(&[(5, true)], &[(3, false)]), [(3, true)]);
        assert_eq!(either(&[], &[(3, false)]), []);
    }
}
