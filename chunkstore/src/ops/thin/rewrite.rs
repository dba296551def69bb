//! Goes through all files of all revisions, and puts what stays in revisions that lose files into new trees.

use super::judge::{Facts, is_good};
use super::scene::Scene;
use super::{ThinCounts, ThinOptions, ThinnedRevision};
use crate::error::{Error, Result};
use crate::format::{ObjectKind, TreePage, TreePageRef, TreePages, TreeRoot};
use crate::id::ChunkId;
use crate::ops::backup::ListWriter;
use crate::progress::Progress;
use crate::retention::Refusal;
use crate::revision::Revision;
use crate::store::Store;
use crate::versions::{FileVersions, Occurrence, PathFilter, Versions};

/// What would be done.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) counts: ThinCounts,
    pub(super) revisions: Vec<ThinnedRevision>,
    pub(super) refusals: Vec<Refusal>,
    pub(super) damaged: Vec<Error>,
}

/// What stays of one revision.
#[derive(Debug)]
pub(super) struct NewTree {
    /// The revision, as it was when that was decided.
    pub(super) revision: Revision,
    pub(super) files_before: u64,
    pub(super) files_after: u64,
    pages: TreePages,
    pub(super) root: TreeRoot,
    /// The new root, if the revision loses some files and not all.
    pub(super) root_id: Option<ChunkId>,
}

/// One pass over all files.
#[derive(Debug)]
pub(super) struct Pass {
    versions: Versions,
    facts: Facts,
    filter: PathFilter,
    /// One for each revision, oldest first; `None` for those that lose nothing.
    trees: Vec<Option<NewTree>>,
    counts: ThinCounts,
    may_judge_ages: bool,
}

impl Pass {
    /// Pins all revisions and reads their roots. A candidate that was forgotten meanwhile is none.
    pub(super) fn open(store: &Store, scene: &Scene, options: &ThinOptions) -> Result<Self> {
        let ids: Vec<_> = scene.revisions.iter().map(|revision| revision.record.id).collect();
        let versions = Versions::of(store, &ids, PathFilter::all())?;
        let is_candidate = |revision: &Revision| {
            scene.candidates.contains(&revision.record.id)
                && is_good(revision)
                && !revision.state.protected
        };
        let revisions = versions.revisions();
        let facts =
            Facts::new(revisions, is_candidate, options.versions, options.gone_after, scene.now);
        let tree = |revision: &Revision| {
            is_candidate(revision).then(|| NewTree {
                revision: revision.clone(),
                files_before: 0,
                files_after: 0,
                pages: TreePages::default(),
                root: TreeRoot::default(),
                root_id: None,
            })
        };
        let trees: Vec<_> = revisions.iter().map(tree).collect();
        let counts = ThinCounts {
            candidates: trees.iter().flatten().count() as u64,
            superseded_revisions: scene.superseded.len() as u64,
            ..ThinCounts::default()
        };
        let may_judge_ages = options.force || scene.clock.is_empty();
        let filter = options.filter.clone();
        Ok(Self { versions, facts, filter, trees, counts, may_judge_ages })
    }

    /// Returns whether nothing may be removed: something cannot be read, or the clock looks wrong and matters.
    pub(super) fn must_stop(&self, scene: &Scene) -> bool {
        !scene.damaged.is_empty()
            || !self.versions.problems().is_empty()
            || (self.counts.gone_files != 0 && !self.may_judge_ages)
    }

    /// Judges all files. With a writer new trees are stored, and the pass ends as soon as something speaks against it.
    pub(super) fn run(
        &mut self,
        progress: &dyn Progress,
        mut writer: Option<&mut ListWriter<'_>>,
    ) -> Result<()> {
        while let Some(file) = self.versions.next() {
            if progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            match file {
                Ok(file) => {
                    self.judge(&file, &mut writer)?;
                    progress.advance(1);
                }
                // It is among the problems.
                Err(error) if error.is_damage() && writer.is_none() => {}
                Err(error) if error.is_damage() => return Ok(()),
                Err(other) => return Err(other),
            }
            if writer.is_some() && self.counts.gone_files != 0 && !self.may_judge_ages {
                return Ok(());
            }
        }
        match writer {
            Some(writer) => self.trees.iter_mut().flatten().try_for_each(|tree| tree.end(writer)),
            None => Ok(()),
        }
    }

    fn judge(
        &mut self,
        file: &FileVersions,
        writer: &mut Option<&mut ListWriter<'_>>,
    ) -> Result<()> {
        let decision = if self.filter.matches(&file.path) {
            self.counts.files += 1;
            Some(self.facts.decide(file))
        } else {
            None
        };
        let is_kept = |index: usize| decision.as_ref().is_none_or(|it| it.is_kept[index]);
        let mut dropped = 0;
        for (index, found) in file.occurrences.iter().enumerate() {
            let Some(tree) = &mut self.trees[found.revision] else { continue };
            tree.files_before += 1;
            if is_kept(index) {
                tree.files_after += 1;
                if let Some(writer) = writer {
                    tree.add(found, writer)?;
                }
            } else {
                dropped += 1;
            }
        }
        self.counts.dropped_entries += dropped;
        if decision.as_ref().is_some_and(|it| it.is_gone) {
            self.counts.gone_files += u64::from(dropped != 0);
        }
        let mut first = 0;
        for run in file.runs() {
            let places = first..first + run.len();
            first = places.end;
            self.counts.dropped_versions += u64::from(!places.into_iter().any(is_kept));
        }
        Ok(())
    }

    /// Returns the plan.
    pub(super) fn into_planned(mut self, scene: Scene) -> Planned {
        self.count_revisions();
        let problems = self.versions.problems().iter().map(|problem| problem.error.again());
        let damaged = scene.damaged.into_iter().chain(problems).collect();
        let loses = |tree: &NewTree| tree.files_after < tree.files_before;
        let row = |tree: &NewTree| ThinnedRevision {
            id: tree.revision.record.id,
            time: tree.revision.record.time,
            files_before: tree.files_before,
            files_after: tree.files_after,
        };
        let revisions = self.trees.iter().flatten().filter(|tree| loses(tree)).map(row).collect();
        let refusals = if self.counts.gone_files == 0 { Vec::new() } else { scene.clock };
        Planned { counts: self.counts, revisions, refusals, damaged }
    }

    /// Returns the revisions that lose files, oldest first. What they still need is stored. All revisions stay pinned by whoever
    /// holds the session.
    pub(super) fn into_trees(mut self) -> (Vec<NewTree>, ThinCounts) {
        self.count_revisions();
        let trees = self.trees.into_iter().flatten();
        (trees.filter(|tree| tree.files_after < tree.files_before).collect(), self.counts)
    }

    fn count_revisions(&mut self) {
        let loses = self.trees.iter().flatten().filter(|it| it.files_after < it.files_before);
        let (mut thinned, mut removed) = (0, 0);
        for tree in loses {
            if tree.files_after == 0 { removed += 1 } else { thinned += 1 }
        }
        (self.counts.thinned_revisions, self.counts.removed_revisions) = (thinned, removed);
    }
}

impl NewTree {
    fn add(&mut self, found: &Occurrence, writer: &mut ListWriter<'_>) -> Result<()> {
        let mut complete = Vec::new();
        self.pages
            .push(found.entry.as_ref().clone(), &mut complete)
            .map_err(|error| Error::Bug { what: format!("an entry of a tree: {error}") })?;
        complete.iter().try_for_each(|page| self.store(page, writer))
    }

    fn store(&mut self, page: &TreePage, writer: &mut ListWriter<'_>) -> Result<()> {
        self.root.pages.push(TreePageRef {
            id: writer.store(ObjectKind::Page, &page.encode())?,
            entry_count: u32::try_from(page.entries.len()).unwrap_or(u32::MAX),
            content_len: page.content_len(),
        });
        Ok(())
    }

    /// Stores what is left, and the root of a tree that has lost some files.
    fn end(&mut self, writer: &mut ListWriter<'_>) -> Result<()> {
        if let Some(page) = self.pages.finish() {
            self.store(&page, writer)?;
        }
        if self.files_after != 0 && self.files_after < self.files_before {
            self.root_id = Some(writer.store(ObjectKind::Root, &self.root.encode())?);
        }
        Ok(())
    }
}
